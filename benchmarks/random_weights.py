"""The paper's two architectures at a tenth of their size, random weights: checkpoints for `presets/tenth.yaml`.

    python -m benchmarks.random_weights && detoxlens preset tenth && dvc repro

runs every stage with the templates, LoRA, loss and decoding of redpajama-3b and falcon-7b. What such models say is
noise; what the stages take of time and memory is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
import transformers as hf
import typer

from benchmarks.script import run
from detoxlens.data.sample import base_corpus
from detoxlens.models import tiny

FOLDER = Path("data/raw/tenth")
TOKENIZER_SIZE = 1024
"""Learnt tokens; the rest of a vocabulary is filled with words that no text has."""
CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "redpajama-3b": {  # 280 M parameters; no parallel residual, all of a head rotated
            "model_type": "gpt_neox",
            "hidden_size": 1024,  # 2,560
            "num_hidden_layers": 14,  # 32
            "num_attention_heads": 32,
            "intermediate_size": 4096,
            "vocab_size": 50_432,
            "max_position_embeddings": 2048,
            "rotary_pct": 1.0,
            "use_parallel_residual": False,
            "tie_word_embeddings": False,
        },
        "falcon-7b": {  # 717 M parameters; one key and value for all heads, attention beside the MLP, rotary, no bias
            "model_type": "falcon",
            "hidden_size": 2272,  # 4,544
            "num_hidden_layers": 11,  # 32
            "num_attention_heads": 71,
            "vocab_size": 65_024,
            "multi_query": True,
            "parallel_attn": True,
            "new_decoder_architecture": False,
            "alibi": False,
            "bias": False,
            "tie_word_embeddings": True,
        },
    }
)


def write_checkpoint(config: Mapping[str, Any], folder: Path, *, dtype: str = "bfloat16") -> None:
    """Random weights of this shape as safetensors, and a tokenizer of the project's own making for its vocabulary."""
    texts = [turn for talk in base_corpus(300, 0, rude=0.5, counter=0.2) for e in talk for turn in (e.human, e.reply)]
    learnt = tiny.train_tokenizer([*texts, "<human>: <bot>: ### Question: ### Answer:"], TOKENIZER_SIZE)
    tokenizer = filled(learnt, config["vocab_size"])
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    shape = hf.AutoConfig.for_model(**config | ends)
    hf.AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def filled(tokenizer, num_tokens: int):
    """The tokenizer with made-up words up to so many tokens: what a random model says must be text.

    A byte pair encoding never reaches a token without merges, so prompts are read as before.
    """
    from tokenizers import Tokenizer

    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = raw["model"]["vocab"]
    raw["model"]["vocab"] = vocab | {f"Ġ~{number}": number for number in range(len(vocab), num_tokens)}
    kept = tokenizer.special_tokens_map
    return hf.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)), **kept)


def main(folder: Annotated[Path, typer.Option(help="Where; one folder per model.")] = FOLDER) -> None:
    """Write both checkpoints, 2 GB."""
    for model, config in CONFIGS.items():
        write_checkpoint(config, folder / model)
        print(f"Wrote {folder / model}")


if __name__ == "__main__":
    run(main)
