"""A stage of a made-up study in a process of its own: seconds, CPU seconds and the largest memory that it held."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from detoxlens.common.errors import UserError

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Spent(wall_seconds=61.0, cpu_seconds=58.2, peak_mib=812.5): of one process, from its start to its end."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    """Largest resident memory."""


def measured(arguments: list[str], *, log: Path) -> Spent:
    """Runs `python <arguments>` to its end, one thread.

    Raises:
        UserError: it failed.
    """
    environ = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    begun = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=out, env=environ)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(arguments)} ended with {process.returncode}: {log.read_text()[-1500:]}")
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return Spent(
        wall_seconds=time.monotonic() - begun,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss * scale / MIB,
    )
