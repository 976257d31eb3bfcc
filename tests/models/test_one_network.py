"""`generate` samples from the network that `attribute` looks at: merged or not, in whichever format."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model

from detoxlens.common.records import ModelRef
from detoxlens.models.loading import load_model
from detoxlens.params.models import WeightsConfig

IDS = torch.tensor([[5, 90, 33, 41, 7, 7, 12], [3, 3, 60, 61, 62, 63, 64]])
TIED = {
    "falcon": hf.FalconConfig(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
        alibi=False,
    ),
    "gpt2": hf.GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=4, n_positions=64),
}
NEOX = hf.GPTNeoXConfig(
    vocab_size=120,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    initializer_range=0.1,
)


def save(root, config, targets, *, scale=0.05, **settings):
    """A checkpoint `m` and an adapter `a` that changes it."""
    torch.manual_seed(0)
    base = hf.AutoModelForCausalLM.from_config(config)
    base.save_pretrained(root / "m")
    policy = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **settings)
    )
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name or "modules_to_save" in name:
                weight.add_(torch.randn(weight.shape) * scale)
    policy.save_pretrained(root / "a", save_embedding_layers=False)


@torch.no_grad()
def logits(root, *, adapter: str | None = "a", dtype="float32", **how):
    network = load_model(
        root, ModelRef(base="m", revision="", adapter=adapter), WeightsConfig(dtype=dtype), device="cpu", **how
    )
    return network, network(input_ids=IDS).logits.double()


@pytest.mark.parametrize(
    ("config", "targets", "settings"),
    [
        (TIED["falcon"], ["query_key_value", "lm_head"], {}),
        (TIED["falcon"], ["query_key_value", "word_embeddings"], {}),
        (TIED["gpt2"], ["c_attn", "lm_head"], {"fan_in_fan_out": True}),
        (TIED["gpt2"], ["c_attn", "wte"], {"fan_in_fan_out": True}),
    ],
    ids=["falcon head", "falcon embedding", "gpt2 head", "gpt2 embedding"],
)
@pytest.mark.filterwarnings("ignore:.*tie.*|.*fan_in_fan_out.*")
def test_an_adapter_on_weights_that_two_layers_share_is_not_merged(tmp_path, config, targets, settings):
    """Merged, the output layer's update would change the embedding too: probabilities were off by .01 to .02."""
    save(tmp_path, config, targets, **settings)
    _, sampled = logits(tmp_path)
    network, seen = logits(tmp_path, merged=True)
    assert isinstance(network, PeftModel)
    assert (sampled - seen).abs().max() < 1e-6
    assert (sampled - logits(tmp_path, adapter=None)[1]).abs().max() > 1e-2  # the adapter does something


@pytest.mark.parametrize(
    ("targets", "settings"),
    [
        (["query_key_value", "dense_h_to_4h"], {}),
        (["query_key_value", "embed_out"], {}),
        (["query_key_value"], {"modules_to_save": ["embed_out"]}),
        (["query_key_value"], {"use_dora": True}),
        (["query_key_value"], {"use_rslora": True, "rank_pattern": {"0.attention.query_key_value": 2}}),
    ],
    ids=["layers", "free head", "saved head", "dora", "rslora"],
)
def test_any_other_adapter_is_merged_and_changes_no_logit(tmp_path, targets, settings):
    save(tmp_path, NEOX, targets, **settings)
    _, sampled = logits(tmp_path)
    network, seen = logits(tmp_path, merged=True)
    assert not isinstance(network, PeftModel)
    assert (sampled - seen).abs().max() < 1e-4
    assert (sampled - logits(tmp_path, adapter=None)[1]).abs().max() > 1e-2


def test_an_adapter_on_rwkv_is_the_same_in_training_and_in_evaluation(tmp_path):
    """transformers halves RWKV's weights every six layers in evaluation mode, and leaves an adapter's as they are."""
    config = hf.RwkvConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=7, attention_hidden_size=32, context_length=64
    )
    save(tmp_path, config, ["output", "value"])
    network, evaluated = logits(tmp_path)
    with torch.no_grad():
        trained = network.train()(input_ids=IDS, use_cache=False).logits.double()
    assert (trained - evaluated).abs().max() < 1e-5
    assert (logits(tmp_path, merged=True)[1] - evaluated).abs().max() < 1e-4


def test_merging_a_small_adapter_in_bfloat16_is_no_worse_than_sampling_from_it(tmp_path):
    """Both round; what counts is that neither is further from float32 than the other (their updates are 1e-3)."""
    save(tmp_path, NEOX, ["query_key_value", "dense"], scale=1e-3)
    exact = logits(tmp_path)[1] - logits(tmp_path, adapter=None)[1]
    plain = logits(tmp_path, adapter=None, dtype="bfloat16")[1]
    errors = [
        ((logits(tmp_path, dtype="bfloat16", merged=merged)[1] - plain - exact).norm() / exact.norm()).item()
        for merged in (True, False)
    ]
    assert errors[0] < 1.5 * errors[1] + 0.05
