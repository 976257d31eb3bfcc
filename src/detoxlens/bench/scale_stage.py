"""One stage of `detoxlens bench scale` in a process of its own: python -m detoxlens.bench.scale_stage ORDER_JSON."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKPOINT = "checkpoint"
"""What is done before the pipeline: a model's random weights and tokenizer are written."""
TOKENIZER_SIZE = 1024
"""Learnt tokens; the rest of a vocabulary is filled with words that no text has."""


def main(order: Mapping[str, Any]) -> None:
    """Does what is ordered, and writes result.json with the most GPU memory that torch held, null on a CPU."""
    from detoxlens.common.artifacts import write_json
    from detoxlens.params.load import load_params

    folder, model, device = Path(order["folder"]), order["model"], order["device"]
    params = load_params(folder / "params.yaml")
    os.environ.setdefault("OMP_NUM_THREADS", str(params.run.num_threads))  # read when torch loads
    if order["stage"] == CHECKPOINT:
        write_checkpoint(
            order["config"], folder / "checkpoints" / model, device=device, dtype=params.model(model).dtype
        )
    else:
        stage = importlib.import_module(f"detoxlens.pipeline.stages.{order['stage']}")
        stage.run(folder, params, **{key: order[key] for key in ("model", "variant") if order[key]})
    gpu_bytes = None
    if device.startswith("cuda"):
        import torch

        gpu_bytes = torch.cuda.max_memory_allocated()
    write_json(folder / "result.json", {"gpu_bytes": gpu_bytes})


def write_checkpoint(config: Mapping[str, Any], folder: Path, *, device: str, dtype: str) -> None:
    """Random weights of this shape as safetensors, and a tokenizer of the project's own making for its vocabulary."""
    import torch
    import transformers as hf

    from detoxlens.data.sample import base_corpus
    from detoxlens.models import tiny

    texts = [turn for talk in base_corpus(300, 0, rude=0.5, counter=0.2) for e in talk for turn in (e.human, e.reply)]
    learnt = tiny.train_tokenizer([*texts, "<human>: <bot>: ### Question: ### Answer:"], TOKENIZER_SIZE)
    tokenizer = filled(learnt, config["vocab_size"])
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = hf.AutoConfig.for_model(**config | ends)
    torch.manual_seed(0)
    with torch.device(device):
        network = hf.AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def filled(tokenizer, num_tokens: int):
    """The tokenizer with made-up words up to so many tokens: what a random model says must be text.

    A byte pair encoding never reaches a token without merges, so prompts are read as before.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = raw["model"]["vocab"]
    raw["model"]["vocab"] = vocab | {f"Ġ~{number}": number for number in range(len(vocab), num_tokens)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)), **tokenizer.special_tokens_map)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    main(json.loads(sys.argv[1]))
