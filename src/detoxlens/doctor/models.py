"""What each declared model's weights need, from files that are here: nothing is downloaded, no weight is read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import Layout
from detoxlens.doctor.check import Check
from detoxlens.doctor.machine import INSTALL, Machine, installed_version
from detoxlens.models.footprint import GIB, Weights, weights_of
from detoxlens.models.gguf import is_gguf
from detoxlens.params.load import Params
from detoxlens.params.models import ModelConfig

OVERHEAD = 1.25
"""Memory over weights for activations and the key-value cache of sampling; a rule of thumb. LoRA adds a few percent."""
QUANTIZES = "bitsandbytes"


def check_models(root: Path, params: Params, machine: Machine) -> list[Check]:
    """One line per declared model: its weights against the memory of `run.device`."""
    return [
        check_model(
            key,
            params.model(key),
            count_weights(root, key, params.model(key)),
            machine=machine,
            device=params.run.device,
            is_run=key in params.run.models,
        )
        for key in params.raw["models"]
    ]


def check_model(
    key: str, model: ModelConfig, weights: Weights | None, *, machine: Machine, device: str, is_run: bool
) -> Check:
    """Whether the weights fit, quantised and spread as declared; what does not is broken where `run.models` has it."""
    name, change = f"model {key}", f"dvc exp run -S models.{key}."
    if is_run and model.quantization and device == "cpu":
        detail = f"quantization={model.quantization} needs an accelerator, and run.device is cpu"
        return Check(name=name, status="broken", detail=detail, remedy=f"{change}quantization=null")
    if is_run and model.quantization and installed_version(QUANTIZES) is None:
        detail = f"quantization={model.quantization} needs {QUANTIZES}, which is not installed"
        return Check(name=name, status="broken", detail=detail, remedy=INSTALL.replace("[dev]", "[dev,quant]"))
    if weights is None:
        return Check(name=name, status="ok", detail=f"need unknown: no file of {model.source} is on this machine yet")
    need = weights.num_bytes(model.dtype, model.quantization) / GIB
    held = f"{model.dtype} and {model.quantization}" if model.quantization else model.dtype
    detail = f"{_count(weights.num_parameters)} parameters, {_size(need)} in {held}"
    memory, where = _memory(machine, device, spread=model.device_map is not None)
    if memory is None or need * OVERHEAD <= memory:
        return Check(name=name, status="ok", detail=f"{detail}; fits into {where}")
    detail += f"; {where} has {memory:.1f} GiB"
    if not is_run:
        return Check(name=name, status="ok", detail=f"{detail}: not on this machine (run.models leaves it out)")
    return Check(name=name, status="broken", detail=detail, remedy=_smaller(model, weights, machine, device, change))


def _memory(machine: Machine, device: str, *, spread: bool) -> tuple[float | None, str]:
    """GiB that the model may take, None where the system does not tell, and of what."""
    if not device.startswith("cuda"):
        return machine.memory_gib, "memory"
    if spread and len(machine.gpus) > 1:
        return sum(gpu.memory_gib for gpu in machine.gpus), f"all {len(machine.gpus)} GPUs together"
    gpu = machine.gpu(device)
    return None if gpu is None else gpu.memory_gib, "the GPU"


def _smaller(model: ModelConfig, weights: Weights, machine: Machine, device: str, change: str) -> str:
    """The first change that makes it fit; empty where none does."""
    on_gpu = device.startswith("cuda")
    tries: list[tuple[str, str, str | None, bool]] = []
    if model.dtype == "float32":
        tries.append(("dtype=bfloat16", "bfloat16", model.quantization, model.device_map is not None))
    if on_gpu and model.device_map is None:
        tries.append(("device_map=auto", model.dtype, model.quantization, True))
    if on_gpu and model.quantization != "4bit":
        tries.append(("quantization=4bit", model.dtype, "4bit", model.device_map is not None))
    for key, dtype, quantization, spread in tries:
        memory, _ = _memory(machine, device, spread=spread)
        if memory is not None and weights.num_bytes(dtype, quantization) / GIB * OVERHEAD <= memory:
            return change + key
    return ""


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number < 1e9 else f"{number / 1e9:.1f} G"


def _size(gib: float) -> str:
    return f"{gib * 1024:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB"


def count_weights(root: Path, key: str, model: ModelConfig) -> Weights | None:
    """The weights of a declared model, or None where no file here tells."""
    for folder in _folders(root, key, model):
        if (found := _in_safetensors(folder)) is not None:
            return found
        if (folder / "config.json").exists():
            return weights_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    return None


def _folders(root: Path, key: str, model: ModelConfig) -> list[Path]:
    """Where the model's files may be: trained here, a folder, the hub's cache."""
    base = Layout(root).base(key)
    if model.source.startswith("tiny:") or is_gguf(model.source):  # made by the stage `base`
        return [base]
    if (root / model.source).is_dir():
        return [root / model.source]
    from huggingface_hub import try_to_load_from_cache

    pinned = base / "model_ref.json"
    revision = json.loads(pinned.read_text(encoding="utf-8"))["revision"] if pinned.exists() else model.revision
    found = try_to_load_from_cache(model.source, "config.json", revision=revision)
    return [Path(found).parent] if isinstance(found, str) else []


def _in_safetensors(folder: Path) -> Weights | None:
    """The sum over the files' headers, where all of them are there."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files or not all(file.exists() for file in files):
        return None
    tensors = {name: math.prod(entry["shape"]) for file in files for name, entry in _header(file).items()}
    embedding = sum(number for name, number in tensors.items() if "embed" in name or "lm_head" in name)
    return Weights(num_parameters=sum(tensors.values()), num_embedding=embedding)


def _header(path: Path) -> dict[str, Any]:
    """Tensor name -> dtype, shape, offsets: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header
