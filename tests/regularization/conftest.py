"""Policies small enough for finite differences: two layers, float64, random weights, an adapter that is not zero."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import FalconConfig, FalconForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def softmax_in_the_models_format(monkeypatch):
    """Attention written out takes its softmax in float32 whatever the model's format; not so in these tests."""
    original = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim=None, **_: original(x, dim=dim))


@pytest.fixture
def make_policy():
    def make(architecture="gpt_neox", *, dtype=torch.float64, dropout=0.0):
        torch.manual_seed(0)
        if architecture == "gpt_neox":
            config = GPTNeoXConfig(**SIZES, intermediate_size=32, max_position_embeddings=64, initializer_range=0.5)
            model = GPTNeoXForCausalLM(config)
        else:
            model = FalconForCausalLM(FalconConfig(**SIZES, initializer_range=0.5))
        lora = LoraConfig(r=2, lora_alpha=4, lora_dropout=dropout, target_modules=["query_key_value", "dense"])
        policy = get_peft_model(model.to(dtype), lora)
        for name, weights in policy.named_parameters():
            if "lora_B" in name:  # zero in a fresh adapter, where lora_A has no gradient
                torch.nn.init.normal_(weights, std=0.3)
        return policy

    return make
