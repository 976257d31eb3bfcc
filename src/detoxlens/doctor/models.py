"""What each declared model's weights need, from files that are here: nothing is downloaded, no weight is read."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detoxlens.artifacts import Layout
from detoxlens.config import ModelConfig, Params
from detoxlens.doctor.check import Check
from detoxlens.doctor.machine import Machine

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
OVERHEAD = 1.25
"""Memory over weights for activations and the key-value cache of sampling; a rule of thumb. LoRA adds a few percent."""


def check_models(root: Path, params: Params, machine: Machine) -> list[Check]:
    """One line per declared model: its weights against the memory of `run.device`."""
    on_gpu = params.run.device.startswith("cuda")
    memory = machine.gpu_memory_gib if on_gpu else machine.memory_gib
    return [
        check_model(
            key,
            params.model(key),
            count_parameters(root, key, params.model(key)),
            memory_gib=memory,
            where="the GPU" if on_gpu else "memory",
            is_run=key in params.run.models,
        )
        for key in params.raw["models"]
    ]


def check_model(
    key: str, model: ModelConfig, num_parameters: int | None, *, memory_gib: float | None, where: str, is_run: bool
) -> Check:
    """Whether the weights fit; a model that does not fit is broken only where `run.models` has it."""
    name = f"model {key}"
    if num_parameters is None:
        return Check(name=name, status="ok", detail=f"need unknown: no file of {model.source} is on this machine yet")
    gib = num_parameters * BYTES[model.dtype] / 2**30
    size = f"{num_parameters / 1e6:.1f} M" if num_parameters < 1e9 else f"{num_parameters / 1e9:.1f} G"
    weights = f"{gib * 1024:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB"
    detail = f"{size} parameters, {weights} in {model.dtype}"
    if memory_gib is None or gib * OVERHEAD <= memory_gib:
        return Check(name=name, status="ok", detail=f"{detail}; fits into {where}")
    detail += f"; {where} has {memory_gib:.1f} GiB"
    if not is_run:
        return Check(name=name, status="ok", detail=f"{detail}: not on this machine (run.models leaves it out)")
    mend = f"dvc exp run -S models.{key}.dtype=bfloat16"
    return Check(name=name, status="broken", detail=detail, mend=mend if model.dtype == "float32" else "")


def count_parameters(root: Path, key: str, model: ModelConfig) -> int | None:
    """The number of weights of a declared model, or None where no file here tells."""
    for folder in _folders(root, key, model):
        if (num := _in_safetensors(folder)) is not None:
            return num
        if (folder / "config.json").exists():
            return from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return None


def _folders(root: Path, key: str, model: ModelConfig) -> list[Path]:
    """Where the model's files may be: trained here, a folder, the hub's cache."""
    base = Layout(root).base(key)
    if model.source.startswith("tiny:"):
        return [base]
    if (root / model.source).is_dir():
        return [root / model.source]
    from huggingface_hub import try_to_load_from_cache

    pinned = base / "model_ref.json"
    revision = json.loads(pinned.read_text(encoding="utf-8"))["revision"] if pinned.exists() else model.revision
    found = try_to_load_from_cache(model.source, "config.json", revision=revision)
    return [Path(found).parent] if isinstance(found, str) else []


def _in_safetensors(folder: Path) -> int | None:
    """The sum over the files' headers, where all of them are there."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files or not all(file.exists() for file in files):
        return None
    return sum(math.prod(entry["shape"]) for file in files for entry in _header(file).values())


def _header(path: Path) -> dict[str, Any]:
    """Tensor name -> dtype, shape, offsets: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def from_config(config: Mapping[str, Any]) -> int | None:
    """Weights of a GPT-NeoX or Falcon from its config.json; None for another architecture.

    Per layer: query, key and value; the projection; two MLP matrices; the norms. Then embeddings and the last norm.
    """
    kind, h = config.get("model_type"), config.get("hidden_size")
    if kind == "gpt_neox":
        inner, biased = config["intermediate_size"], config.get("attention_bias", True)
        attention = 4 * h * h + (4 * h if biased else 0)
        layer = attention + 2 * h * inner + inner + h + 4 * h
        heads = 1 if config.get("tie_word_embeddings", False) else 2
        return config["num_hidden_layers"] * layer + heads * config["vocab_size"] * h + 2 * h
    if kind == "falcon" and not config.get("new_decoder_architecture", False):
        layers, num_heads = config["num_hidden_layers"], config["num_attention_heads"]
        kv_heads = 1 if config.get("multi_query", True) else num_heads
        qkv = h + 2 * kv_heads * (h // num_heads)
        inner = config.get("ffn_hidden_size") or 4 * h
        bias = qkv + h + inner + h if config.get("bias", False) else 0
        norms = 2 * h if config.get("parallel_attn", True) else 4 * h
        heads = 1 if config.get("tie_word_embeddings", True) else 2
        layer = h * qkv + h * h + 2 * h * inner + bias + norms
        return layers * layer + heads * config["vocab_size"] * h + 2 * h
    return None
