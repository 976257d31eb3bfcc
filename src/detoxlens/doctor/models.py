"""Check of each declared model's memory, from files that are here: nothing is downloaded, no weight is read."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import Layout
from detoxlens.doctor.check import Check
from detoxlens.doctor.machine import INSTALL, Machine, installed_version
from detoxlens.models.footprint import GIB, Footprint, Weights, heap_of, num_lora_parameters, weights_of
from detoxlens.models.gguf import is_gguf
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.models import ModelConfig
from detoxlens.plan.counts import count, generated_tokens, read_data
from detoxlens.plan.memory import peak

Peak = Callable[[Footprint], tuple[str, float]]
"""Sizes -> the stage that needs most memory, and its bytes: `plan.memory.peak` over the variants."""
SIZES = ("hidden_size", "num_hidden_layers", "vocab_size")
"""Keys of config.json that memory depends on."""
QUANTIZES = "bitsandbytes"


def check_models(root: Path, params: Params, machine: Machine) -> list[Check]:
    """One line per declared model: what its largest stage needs against the memory of `run.device`."""
    return [
        check_model(
            key,
            params.model(key),
            footprint_of(root, params, key),
            peak_of(root, params, key),
            machine=machine,
            device=params.run.device,
            is_run=key in params.run.models,
        )
        for key in params.raw["models"]
    ]


def peak_of(root: Path, params: Params, key: str) -> Peak:
    """The forecast of `detoxlens plan`, its most demanding stage of all variants."""
    layout = Layout(root)
    data = read_data(layout)
    counts = {
        variant: count(data, params, key, variant, earlier_tokens=generated_tokens(layout, key, variant))
        for variant in params.run.variants
    }

    def most(footprint: Footprint) -> tuple[str, float]:
        needs = [peak(params, key, variant, of, footprint) for variant, of in counts.items()]
        return max(needs, key=lambda found: found[1])

    return most


def footprint_of(root: Path, params: Params, key: str) -> Footprint | None:
    """Sizes of a declared model with its largest adapter, or None where no file here tells."""
    spec = params.model(key)
    weights, config = count_weights(root, key, spec), _config(root, key, spec)
    if weights is None or config is None or not all(size in config for size in SIZES):
        return None
    adapters = [params.section("lora", LoraConfig, model=key, variant=variant) for variant in params.run.variants]
    return Footprint(
        weights=weights,
        num_adapter_parameters=max(
            num_lora_parameters(config, r=lora.r, target_modules=lora.target_modules) for lora in adapters
        ),
        hidden=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        vocab=config["vocab_size"],
        dtype=spec.dtype,
        quantization=spec.quantization,
        heap=heap_of(params.run.device),
    )


def check_model(
    key: str,
    model: ModelConfig,
    footprint: Footprint | None,
    peak: Peak,
    *,
    machine: Machine,
    device: str,
    is_run: bool,
) -> Check:
    """Whether it fits, quantised and spread as declared; what does not is broken where `run.models` has it."""
    name, change = f"model {key}", f"dvc exp run -S models.{key}."
    if is_run and model.quantization and device == "cpu":
        detail = f"quantization={model.quantization} needs an accelerator, and run.device is cpu"
        return Check(name=name, status="broken", detail=detail, remedy=f"{change}quantization=null")
    if is_run and model.quantization and installed_version(QUANTIZES) is None:
        detail = f"quantization={model.quantization} needs {QUANTIZES}, which is not installed"
        return Check(name=name, status="broken", detail=detail, remedy=INSTALL.replace("[dev]", "[dev,quant]"))
    if footprint is None:
        return Check(name=name, status="ok", detail=f"need unknown: no file of {model.source} is on this machine yet")
    stage, needed = peak(footprint)
    held = f"{model.dtype} and {model.quantization}" if model.quantization else model.dtype
    detail = (
        f"{_count(footprint.weights.num_parameters)} parameters, {_size(footprint.weight_bytes / GIB)} in {held}; "
        f"most in {stage}, {_size(needed / GIB)}"
    )
    memory, where = _memory(machine, device, spread=model.device_map is not None)
    if memory is None or needed / GIB <= memory:
        return Check(name=name, status="ok", detail=f"{detail}; fits into {where}")
    detail += f"; {where} has {memory:.1f} GiB"
    if not is_run:
        return Check(name=name, status="ok", detail=f"{detail}: not on this machine (run.models leaves it out)")
    remedy = _smaller(model, footprint, peak, machine, device, change)
    return Check(name=name, status="broken", detail=detail, remedy=remedy)


def _memory(machine: Machine, device: str, *, spread: bool) -> tuple[float | None, str]:
    """GiB that the model may take, None where the system does not tell, and of what."""
    if not device.startswith("cuda"):
        return machine.memory_gib, "memory"
    if spread and len(machine.gpus) > 1:
        return sum(gpu.memory_gib for gpu in machine.gpus), f"all {len(machine.gpus)} GPUs together"
    gpu = machine.gpu(device)
    return None if gpu is None else gpu.memory_gib, "the GPU"


def _smaller(model: ModelConfig, footprint: Footprint, peak: Peak, machine: Machine, device: str, change: str) -> str:
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
        smaller = dataclasses.replace(footprint, dtype=dtype, quantization=quantization)
        if memory is not None and peak(smaller)[1] / GIB <= memory:
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


def _config(root: Path, key: str, model: ModelConfig) -> dict[str, Any] | None:
    """The config.json of a declared model; of one that has a part for text, that part."""
    for folder in _folders(root, key, model):
        if (folder / "config.json").exists():
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return found.get("text_config", found)
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
