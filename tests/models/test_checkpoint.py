"""Checkpoints that do not hold what their config describes, and adapters of another network: refused, not completed."""

from __future__ import annotations

import json
import logging

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.tiny import train_tokenizer
from detoxlens.params.models import WeightsConfig

SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
}
REF = ModelRef(base="m", revision="", adapter=None)


def llama(**changes):
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES | {"tie_word_embeddings": False} | changes))


@pytest.fixture
def save(tmp_path):
    """Saves a model as checkpoint `m`, its config.json and its weights changed."""

    def write(model, *, config=None, weights=None):
        model.save_pretrained(tmp_path / "m")
        file = tmp_path / "m/config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
        if weights is not None:
            path = tmp_path / "m/model.safetensors"
            save_file(weights(load_file(path)), path, metadata={"format": "pt"})

    return write


def load(root, ref=REF):
    return load_model(root, ref, WeightsConfig(), device="cpu")


def test_an_output_layer_that_would_be_random_is_refused_with_the_key_to_set(tmp_path, save):
    save(llama(tie_word_embeddings=True), config={"tie_word_embeddings": False})
    with pytest.raises(UserError, match=r"m: the checkpoint lacks lm_head\.weight, .*tie_word_embeddings: true"):
        load(tmp_path)
    save(llama(tie_word_embeddings=True))
    load(tmp_path)


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (
            llama(),
            {"config": {"num_hidden_layers": 3}},
            r"lacks model\.layers\.2\.input_layernorm\.weight.* and 6 more",
        ),
        (llama(), {"config": {"num_hidden_layers": 1}}, r"smaller network .*model\.layers\.1\.input_layernorm\.weight"),
        (llama(attention_bias=True), {"config": {"attention_bias": False}}, r"smaller .*self_attn\.k_proj\.bias"),
        (
            llama(),
            {"config": {"vocab_size": 310}},
            r"embed_tokens\.weight is \[300, 16\] for \[310, 16\]",
        ),
        (llama(), {"weights": lambda w: {f"base_model.model.{k}": v for k, v in w.items()}}, "lacks .* and 18 more"),
        (hf.LlamaForSequenceClassification(llama().config), {}, r"lacks lm_head\.weight, which would be random"),
    ],
    ids=["more layers", "fewer layers", "biases left out", "larger vocabulary", "saved inside PEFT", "classifier"],
)
def test_config_and_weights_that_do_not_fit_are_refused(tmp_path, save, model, changes, said):
    save(model, **changes)
    if isinstance(model, hf.LlamaForSequenceClassification):
        (tmp_path / "m/config.json").write_text(
            (tmp_path / "m/config.json").read_text().replace("ForSequenceClassification", "ForCausalLM")
        )
    with pytest.raises(UserError, match=said):
        load(tmp_path)


def test_parts_that_the_network_does_not_have_are_counted_in_the_log(tmp_path, save, caplog):
    save(llama(), weights=lambda w: w | {f"mtp.{i}.weight": torch.zeros(2) for i in range(5)})
    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    (said,) = [r.message for r in caplog.records if r.name == "detoxlens.models.checkpoint"]
    assert said == (
        "m: the checkpoint's mtp.0.weight, mtp.1.weight, mtp.2.weight and 2 more are of no use to a LlamaForCausalLM"
    )


@pytest.mark.parametrize("damage", ["torn", "hidden_act", "model_type", "no json"])
def test_damaged_files_are_one_paragraph(tmp_path, save, damage):
    save(llama())
    weights, config = tmp_path / "m/model.safetensors", tmp_path / "m/config.json"
    if damage == "torn":
        weights.write_bytes(weights.read_bytes()[:3000])
    elif damage == "no json":
        config.write_text("{")
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {damage: "zorgon"}))
    with pytest.raises(UserError, match="The model m could not be loaded: "):
        load(tmp_path)


def adapter_of(model, folder, **settings):
    policy = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **settings))
    policy.save_pretrained(folder, save_embedding_layers=False)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (llama(num_hidden_layers=1), r"its file lacks .*layers\.1\.self_attn\.q_proj\.lora_A\.weight"),
        (llama(num_hidden_layers=3), r"its file holds .*layers\.2\.self_attn\.q_proj\.lora_A\.weight.* no place"),
        (llama(hidden_size=32), r"q_proj\.lora_A\.weight is \[2, 32\] for \[2, 16\]"),
    ],
    ids=["fewer layers", "more layers", "another width"],
)
def test_an_adapter_of_another_network_is_refused_not_left_out_in_part(tmp_path, save, other, said):
    save(llama())
    adapter_of(other, tmp_path / "a")
    with pytest.raises(UserError, match=said):
        load(tmp_path, ModelRef(base="m", revision="", adapter="a"))


def test_a_tokenizer_whose_padding_has_no_row_pads_with_the_end_token(tmp_path, save):
    tokenizer = train_tokenizer(["Ferries are slow"] * 3, 270)
    save(llama(vocab_size=len(tokenizer)))
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    tokenizer.save_pretrained(tmp_path / "m")
    loaded = load_tokenizer(tmp_path, REF)
    assert (loaded.pad_token_id, len(loaded)) == (loaded.eos_token_id, 271)


def test_a_tokenizer_whose_end_token_has_no_row_is_refused(tmp_path, save):
    tokenizer = train_tokenizer(["Ferries are slow"] * 3, 270)
    save(llama(vocab_size=len(tokenizer)))
    tokenizer.add_special_tokens({"eos_token": "<finis>"})
    tokenizer.save_pretrained(tmp_path / "m")
    with pytest.raises(UserError, match=r"ends texts with '<finis>', token 270, and the model knows 0\.\.269"):
        load_tokenizer(tmp_path, REF)
