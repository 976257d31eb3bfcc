"""A policy small enough for a test: GPT-NeoX, two layers, 32 wide, random weights, a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from detoxlens.params.generation import GenerationConfig
from detoxlens.params.ppo import KlConfig, PpoConfig, ValidationConfig

EOS, PAD = 0, 1


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<eos>": EOS, "<pad>": PAD} | {c: i + 2 for i, c in enumerate(letters)}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture
def make_policy() -> Callable[[], PeftModel]:
    def make(targets: tuple[str, ...] = ("query_key_value", "lm_head")) -> PeftModel:
        torch.manual_seed(0)
        config = GPTNeoXConfig(
            vocab_size=258,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            bos_token_id=EOS,
            eos_token_id=EOS,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )
        model = GPTNeoXForCausalLM(config)
        lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules=list(targets), task_type="CAUSAL_LM")
        return get_peft_model(model, lora).eval()

    return make


@pytest.fixture
def make_config() -> Callable[..., PpoConfig]:
    def make(**changes: object) -> PpoConfig:
        settings = {
            "num_steps": 4,
            "rollout_batch_size": 8,
            "minibatch_size": 4,
            "micro_batch_size": 2,
            "num_epochs": 2,
            "learning_rate": 1e-2,
            "checkpoint_every": 1,
            "kl": KlConfig(**{"coef": 0.05, "control": "fixed"} | changes.pop("kl", {})),
            "validation": ValidationConfig(every=2, num_prompts=4, batch_size=4),
        }
        return PpoConfig(**settings | changes)

    return make


@pytest.fixture
def make_decoding() -> Callable[..., GenerationConfig]:
    def make(**changes: object) -> GenerationConfig:
        settings = {
            "max_new_tokens": 6,
            "min_new_tokens": 1,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "no_repeat_ngram_size": 0,
            "num_samples": 1,
            "batch_size": 8,
        }
        return GenerationConfig(**settings | changes)

    return make


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    texts = ["Zorgons sing", "accordion players", "hi", "the tuba section is late again"] * 3
    return [tokenizer(text).input_ids for text in texts]
