"""`lora.target_modules: all-linear`: the linear layers of any architecture."""

from types import SimpleNamespace

import pytest
import transformers as hf

from detoxlens.common.errors import UserError
from detoxlens.models.lora import add_adapter, linear_layers
from detoxlens.params.lora import LoraConfig


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16)), "c_attn c_fc c_proj"),
        (
            hf.LlamaForCausalLM(
                hf.LlamaConfig(
                    num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=2, vocab_size=16
                )
            ),
            "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj",
        ),
    ],
    ids=["gpt2", "llama"],
)
def test_all_linear_is_every_linear_layer_but_the_output_layer(model, layers):
    assert linear_layers(model) == layers.split()
    config = LoraConfig(r=2, alpha=2, dropout=0, target_modules="all-linear")
    adapted = add_adapter(model, config)
    assert sorted(adapted.peft_config["default"].target_modules) == layers.split()
    assert not [n for n, _ in adapted.named_parameters() if "lora" in n and "lm_head" in n]


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
def test_all_linear_is_what_the_embedded_models_were_adapted_on(architecture):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}
    config = hf.GPTNeoXConfig(**sizes, intermediate_size=16) if architecture == "gpt_neox" else hf.FalconConfig(**sizes)
    names = ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]
    assert linear_layers(hf.AutoModelForCausalLM.from_config(config)) == names


def test_weights_without_gradients_are_refused_in_one_paragraph():
    model = hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16))
    model.hf_quantizer = SimpleNamespace(
        is_trainable=False, quantization_config=SimpleNamespace(quant_method="fp_quant")
    )
    with pytest.raises(UserError, match="quantised by fp_quant, which passes no gradients on"):
        add_adapter(model, LoraConfig(r=2, alpha=2, dropout=0, target_modules="all-linear"))
