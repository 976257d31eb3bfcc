"""Transformers' causal language models, small and with random weights, against one backward pass per token."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from detoxlens.attribution import attribute
from detoxlens.common.errors import UserError
from tests.attribution.tiny import VOCAB, loop, max_difference

NAMES = [
    "apertus",
    "arcee",
    "bailing_hybrid",
    "big_bird",
    "biogpt",
    "bitnet",
    "blenderbot-small",
    "bloom",
    "cohere",
    "cohere2",
    "ctrl",
    "cwm",
    "diffllama",
    "doge",
    "ernie4_5",
    "exaone4",
    "falcon_mamba",
    "flint",
    "fuyu",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_unified_text",
    "glm",
    "glm4",
    "gpt-sw3",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gpt_neox_japanese",
    "granite",
    "granite_swa",
    "helium",
    "hrm_text",
    "hunyuan_v1_dense",
    "hyperclovax",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jetmoe",
    "lfm2",
    "lfm3",
    "llama",
    "llama4_text",
    "mamba",
    "megatron-bert",
    "ministral",
    "ministral3",
    "mistral",
    "modernbert-decoder",
    "moshi",
    "mpt",
    "nanochat",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "openai-gpt",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_5_text",
    "recurrent_gemma",
    "rembert",
    "roformer",
    "rwkv",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "trocr",
    "vaultgemma",
    "xlstm",
]
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": VOCAB - 1,
    "pad_token_id": VOCAB - 1,
    "head_dim": 8,
}


def random_model(name, **changes):
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(hf.CONFIG_MAPPING[name](**SIZES | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.double()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of models that are on their way out
@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_one_backward_pass_per_token(name):
    model = random_model(name, is_decoder=True)
    prompt, completion = (5, 9, 33, 2, 7, 61), (8, 14, 3, 77, 50)
    (found,) = attribute(model, prompt_ids=[prompt], completion_ids=[completion])
    assert max_difference(found.scores, loop(model, prompt, completion)) < 1e-6


def test_a_model_that_reads_what_comes_after_is_refused():
    with pytest.raises(UserError, match="BertLMHeadModel reads the tokens after a position"):
        attribute(random_model("bert"), prompt_ids=[[5, 9]], completion_ids=[[3, 4, 8]])
