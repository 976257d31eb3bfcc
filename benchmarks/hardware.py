"""What a figure was measured on, so that it means something to someone else."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from detoxlens.common.machine import memory_gib, num_cores

PACKAGES = ("torch", "transformers", "inseq", "dvc", "mlflow")


def hardware() -> dict[str, object]:
    """CPU, cores, memory, accelerator, versions, and how busy the machine was when asked.

    {"cpu": "AMD EPYC", "num_cores": 2, "memory_gib": 23.5, "accelerator": None, "load_1min": 0.3, ...}
    """
    return {
        "cpu": _cpu_name(),
        "num_cores": num_cores(),
        "memory_gib": None if (memory := memory_gib()) is None else round(memory, 1),
        "accelerator": _accelerator(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def in_words(found: dict[str, object]) -> str:
    """One line for above a table."""
    return (
        f"{found['cpu']}, {found['num_cores']} cores, {found['memory_gib']} GiB; {found['accelerator'] or 'no GPU'}; "
        f"load {found['load_1min']} at the start; Python {found['python']}, torch {version('torch')}"
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _accelerator() -> str | None:
    """The GPU's name; only asked of a torch that is loaded anyway, which takes seconds."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
