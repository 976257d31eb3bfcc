"""Resident memory of this process, in bytes, and its peak since it was last forgotten.

Imports nothing but the standard library: the child in TRL's environment, where detoxlens is not installed, uses it too.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")


def forget_peak() -> int:
    """Makes the peak what is resident now, and returns that. Where the system cannot, the peak is the process's."""
    if not STATUS.exists():
        return peak()
    FORGET.write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> int:
    """The most that was resident since `forget_peak`."""
    if STATUS.exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024  # always in kB
    raise AssertionError(f"{STATUS} has no {field}")
