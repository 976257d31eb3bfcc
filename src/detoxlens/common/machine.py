"""Cores, memory and accelerator of the machine, without loading torch, which takes seconds."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """`2 cores of Intel Xeon, 8 GiB`, and the accelerator where this process has used one."""
    memory = memory_gib()
    parts = [f"{num_cores()} cores of {_processor()}", *([f"{memory:.0f} GiB"] if memory else [])]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    """Its name where Linux knows it, else its kind: `arm64`."""
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.machine())


def num_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Main memory in GiB; None where the system does not tell."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
