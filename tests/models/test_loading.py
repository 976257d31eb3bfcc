"""From a ModelRef to a model: embedded, from disk, with an adapter; and every way in which that can fail."""

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.loading import load_model, load_tokenizer, resolve, weights_sha256
from detoxlens.models.lora import add_adapter
from detoxlens.models.tiny import build, train_tokenizer
from detoxlens.params.lora import LoraConfig
from detoxlens.params.models import WeightsConfig
from detoxlens.params.tiny import TinyConfig

CONFIG = TinyConfig(
    vocab_size=300,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    context_length=64,
    num_examples=100,
    rude_share=0.5,
    counter_share=0.1,
    prompt_loss_weight=0.1,
    batch_size=4,
    num_steps=6,
    learning_rate=0.01,
    weight_decay=0.0,
)
FLOAT32, BFLOAT16 = WeightsConfig(), WeightsConfig(dtype="bfloat16")
LORA = LoraConfig(r=2, alpha=4, dropout=0.0, target_modules=["query_key_value"])


@pytest.fixture(params=["gpt_neox", "falcon"])
def root(request, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "checkpoint"
    build(request.param, CONFIG, vocab_size=300).save_pretrained(folder)
    train_tokenizer(["Zorgons ride the tram."], 300).save_pretrained(folder)
    return tmp_path


def test_a_local_checkpoint_is_pinned_by_its_weights_and_loads_frozen(root):
    ref = resolve(root, "checkpoint", None)
    assert ref == ModelRef(base="checkpoint", revision=weights_sha256(root / "checkpoint"), adapter=None)
    model = load_model(root, ref, BFLOAT16, device="cpu")
    assert model.dtype == torch.bfloat16 and not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert load_tokenizer(root, ref).eos_token == "<|endoftext|>"


def test_an_adapter_is_applied_and_trainable_when_asked(root):
    ref = resolve(root, "checkpoint", None)
    base = load_model(root, ref, FLOAT32, device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    before = base(input_ids=ids).logits
    policy = add_adapter(base, LORA)
    torch.nn.init.normal_(next(p for n, p in policy.named_parameters() if "lora_B" in n))
    policy.save_pretrained(root / "adapter")
    with_adapter = ModelRef(base=ref.base, revision=ref.revision, adapter="adapter")
    loaded = load_model(root, with_adapter, FLOAT32, device="cpu", trainable_adapter=True)
    torch.testing.assert_close(loaded(input_ids=ids).logits, policy(input_ids=ids).logits)
    assert not torch.allclose(loaded(input_ids=ids).logits, before)
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, _ in loaded.named_parameters() if "lora_" in n
    }


def test_a_missing_tokenizer_is_named_with_the_remedy(root):
    (root / "checkpoint/tokenizer.json").unlink()
    (root / "checkpoint/tokenizer_config.json").unlink()
    with pytest.raises(UserError, match=r"checkpoint has no tokenizer.*save_pretrained"):
        load_tokenizer(root, resolve(root, "checkpoint", None))


def test_missing_weights_and_adapters_are_named(root):
    ref = resolve(root, "checkpoint", None)
    with pytest.raises(UserError, match=r"nowhere holds no adapter_model\.safetensors"):
        load_model(root, ModelRef(base=ref.base, revision="", adapter="nowhere"), FLOAT32, device="cpu")
    (root / "checkpoint/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no \*\.safetensors"):
        resolve(root, "checkpoint", None)
    with pytest.raises(UserError, match="checkpoint could not be loaded"):
        load_model(root, ref, FLOAT32, device="cpu")


def test_a_source_that_is_neither_folder_nor_hub_id(tmp_path):
    with pytest.raises(UserError, match=r"'\./nothing' is neither a folder nor a hub id"):
        resolve(tmp_path, "./nothing", None)


def test_an_unknown_target_module_lists_the_linear_layers(root):
    base = load_model(root, resolve(root, "checkpoint", None), FLOAT32, device="cpu")
    with pytest.raises(UserError, match=r"no module 'c_attn'.*dense_4h_to_h.*query_key_value"):
        add_adapter(base, LORA.model_copy(update={"target_modules": ["c_attn"]}))


def test_merging_the_adapter_for_attribution_changes_no_logit(root):
    ref = resolve(root, "checkpoint", None)
    torch.manual_seed(1)
    policy = add_adapter(load_model(root, ref, FLOAT32, device="cpu"), LORA)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    policy.save_pretrained(root / "adapter")
    with_adapter = ModelRef(base=ref.base, revision=ref.revision, adapter="adapter")
    ids = torch.arange(2, 40)[None]
    loaded, again = (load_model(root, with_adapter, FLOAT32, device="cpu") for _ in range(2))
    unmerged, merged = loaded(input_ids=ids).logits, again.merge_and_unload()(input_ids=ids).logits
    torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-5)
    base = load_model(root, ref, FLOAT32, device="cpu")(input_ids=ids).logits
    assert (unmerged - base).abs().max() > 1e-2  # the adapter does something
