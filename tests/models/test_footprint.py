"""What a model takes, by hand and against the models themselves."""

import dataclasses

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from detoxlens.models.footprint import Footprint, Weights, num_lora_parameters, weights_of

NEOX = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 500}
FALCON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 500}
CONFIGS = [
    hf.GPTNeoXConfig(**NEOX),
    hf.GPTNeoXConfig(**NEOX, attention_bias=False, tie_word_embeddings=True),
    hf.FalconConfig(**FALCON, new_decoder_architecture=False),
    hf.FalconConfig(**FALCON, new_decoder_architecture=False, multi_query=False, bias=True, parallel_attn=False),
]
MODULES = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_and_adapters_are_those_of_the_model_itself(config):
    with torch.device("meta"):
        network = hf.AutoModelForCausalLM.from_config(config)
        found = weights_of(config.to_dict())
        assert found.num_parameters == network.num_parameters()
        assert found.num_embedding == (1 if config.tie_word_embeddings else 2) * 500 * 64
        for targets in (MODULES[:1], MODULES):
            adapted = get_peft_model(
                hf.AutoModelForCausalLM.from_config(config), LoraConfig(r=3, target_modules=targets)
            )
            there = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
            assert num_lora_parameters(config.to_dict(), r=3, target_modules=targets) == there


def test_the_papers_models_have_the_sizes_they_are_known_for():
    neox = {"model_type": "gpt_neox", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32}
    assert weights_of(neox | {"vocab_size": 50432}).num_parameters == 2_775_864_320
    falcon = {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}
    found = weights_of(falcon | {"vocab_size": 65024})
    assert (found.num_parameters, found.num_embedding) == (6_921_720_704, 65024 * 4544)
    assert weights_of({"model_type": "other", "hidden_size": 8}) is None


def test_bytes_by_hand():
    weights = Weights(num_parameters=1000, num_embedding=200)
    assert weights.num_bytes("float32") == 4000 and weights.num_bytes("bfloat16") == 2000
    assert weights.num_bytes("bfloat16", "8bit") == 200 * 2 + 800
    assert weights.num_bytes("float16", "4bit") == pytest.approx(200 * 2 + 800 * 0.516)
    shape = Footprint(weights=weights, num_adapter_parameters=10, hidden=8, num_layers=2, vocab=100, dtype="bfloat16")
    assert shape.activation_bytes(5, recomputed=False) == 5 * (2 * 8 * 34 * 2 + 1200)
    assert shape.training_bytes(num_tokens=5, recomputed=True) == 2000 + 160 + 5 * (2 * 8 * 2 + 1200)
    assert shape.training_bytes(num_tokens=5, recomputed=True, num_adapters=2) == 2000 + 320 + 5 * (32 + 1200)
    on_cpu = dataclasses.replace(shape, heap=2.0)
    assert on_cpu.training_bytes(num_tokens=5, recomputed=True) == 2000 + 160 + 2 * 5 * (32 + 1200)
    assert shape.sampling_bytes(batch=3, num_tokens=7) == 2000 + 3 * (2 * 2 * 8 * 7 * 2 + 3200)
    assert shape.attribution_bytes(num_tokens=5, dtype="float32") - shape.attribution_bytes(num_tokens=5) == 2000
