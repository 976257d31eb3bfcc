"""Transformers' causal language models, small and with random weights, and what a plain pass makes of one row."""

from __future__ import annotations

import torch
import transformers as hf

from tests.attribution.tiny import VOCAB

_NAMES = """
    apertus arcee bailing_hybrid big_bird biogpt bitnet blenderbot-small bloom cohere cohere2 ctrl cwm diffllama
    doge ernie4_5 exaone4 falcon_mamba flint fuyu gemma gemma2 gemma3_text gemma4_unified_text glm glm4 gpt-sw3
    gpt2 gpt_bigcode gpt_neox gpt_neox_japanese granite granite_swa helium hrm_text hunyuan_v1_dense hyperclovax
    internlm3 iquestcoder jais2 jetmoe lfm2 lfm3 llama llama4_text mamba megatron-bert ministral ministral3 mistral
    modernbert-decoder moshi mpt nanochat nemotron olmo olmo2 olmo3 olmo_hybrid openai-gpt opt persimmon phi phi3
    qwen2 qwen3 qwen3_5_text recurrent_gemma rembert roformer rwkv seed_oss smollm3 stablelm starcoder2 trocr
    vaultgemma xlstm
"""
NAMES = _NAMES.split()
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


def random_model(name: str, **changes: object) -> hf.PreTrainedModel:
    """In float64, in evaluation mode; weights so large that tokens differ in what they contribute."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(hf.CONFIG_MAPPING[name](**SIZES | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.double()


@torch.no_grad()
def plain_logits(model: torch.nn.Module, row: list[int]) -> torch.Tensor:
    """(tokens, vocab) in float64, of a pass over this row alone, without padding, mask, positions or cache."""
    return model(input_ids=torch.tensor([row]), use_cache=False).logits[0].double()


def greedy_by_hand(model: torch.nn.Module, prompt: list[int], num_tokens: int, eos: int) -> list[int]:
    """The most probable tokens, each from a plain pass over the whole prefix."""
    ids = list(prompt)
    while len(ids) < len(prompt) + num_tokens and ids[len(prompt) :][-1:] != [eos]:
        ids.append(int(plain_logits(model, ids)[-1].argmax()))
    return ids[len(prompt) :]


def log_probs_by_hand(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> list[float]:
    """log p of each token of the completion, nats."""
    logs = plain_logits(model, [*prompt, *completion]).log_softmax(-1)
    return [logs[len(prompt) - 1 + t, token].item() for t, token in enumerate(completion)]
