"""Checks of installed versions, free disk and processors. Nothing here imports torch: that takes seconds."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from detoxlens.common.machine import memory_gib, num_cores
from detoxlens.doctor.check import Check, some

LOW_GIB, FULL_GIB = 5.0, 0.5
"""Free disk below which a line warns, and below which a cold `dvc repro` of the embedded default would fail."""
INSTALL = "python -m pip install --constraint constraints.txt --editable '.[dev]'"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Gpu(name="NVIDIA H200", memory_gib=140.4)"""

    name: str
    memory_gib: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What computes.

    Machine(num_cores=2, memory_gib=23.5, gpus=(), torch_has_cuda=False)
    """

    num_cores: int
    memory_gib: float | None
    gpus: tuple[Gpu, ...]
    """As the driver numbers them."""
    torch_has_cuda: bool

    def gpu(self, device: str) -> Gpu | None:
        """The one that `run.device` names, `cuda` being the first; None where there is no such card."""
        number = int(device.partition(":")[2] or 0)
        return self.gpus[number] if number < len(self.gpus) else None


def check_versions(constraints: Path, installed: Callable[[str], str | None] | None = None) -> Check:
    """The installed packages are those that the results were made with.

    Args:
        constraints: constraints.txt.
        installed: package -> version, or None where it is not installed.
    """
    from packaging.specifiers import SpecifierSet

    installed = installed or installed_version
    if not constraints.exists():
        detail = f"Python {platform.python_version()}; no constraints.txt to compare with (optional)"
        return Check(name="versions", status="ok", detail=detail)
    pinned = [line.split("==") for line in constraints.read_text(encoding="utf-8").split() if "==" in line]
    found = {name: (installed(name), wanted) for name, wanted in pinned}
    other = [
        f"{name} {have} instead of {wanted}"
        for name, (have, wanted) in found.items()
        if have is not None and not SpecifierSet(f"=={wanted}").contains(have, prereleases=True)
    ]
    num_there = sum(have is not None for have, _ in found.values())
    python = platform.python_version()
    if other:
        return Check(name="versions", status="broken", detail=some(other), remedy=INSTALL)
    detail = f"Python {python}; {num_there} packages as in constraints.txt"
    return Check(name="versions", status="ok", detail=detail)


def check_disk(root: Path, *, free_gib: float | None = None) -> Check:
    """There is room for results."""
    free = shutil.disk_usage(root).free / 2**30 if free_gib is None else free_gib
    status = "broken" if free < FULL_GIB else "warning" if free < LOW_GIB else "ok"
    remedy = "" if status == "ok" else "dvc gc --workspace"
    return Check(name="disk", status=status, detail=f"{free:.1f} GiB free in {root}", remedy=remedy)


def check_machine(machine: Machine, *, device: str, num_threads: int) -> Check:
    """`run.device` and `run.num_threads` are there."""
    memory = f", {machine.memory_gib:.1f} GiB memory" if machine.memory_gib else ""
    cards = [f"{gpu.name}, {gpu.memory_gib:.0f} GiB" for gpu in machine.gpus]
    words = f"{machine.num_cores} cores{memory}, {'; '.join(cards) or 'no GPU'}"
    if device.startswith("cuda") and machine.gpu(device) is None:
        has = f"there are {len(cards)}" if cards else "needs a GPU"
        remedy = "dvc exp run -S run.device=cuda" if cards else "dvc exp run -S run.device=cpu"
        return Check(name="machine", status="broken", detail=f"{words}; run.device={device} {has}", remedy=remedy)
    if machine.gpus and not machine.torch_has_cuda:
        remedy = (
            f"python -m pip install --force-reinstall --no-deps torch=={metadata.version('torch').partition('+')[0]}"
        )
        status = "broken" if device.startswith("cuda") else "warning"
        return Check(name="machine", status=status, detail=f"{words}; torch is built without CUDA", remedy=remedy)
    if num_threads > machine.num_cores:
        detail = f"{words}; run.num_threads={num_threads} is more than there are"
        remedy = f"dvc exp run -S run.num_threads={machine.num_cores}"
        return Check(name="machine", status="warning", detail=detail, remedy=remedy)
    return Check(name="machine", status="ok", detail=f"{words}; run.device={device}, run.num_threads={num_threads}")


def this_machine() -> Machine:
    """What is here."""
    return Machine(num_cores=num_cores(), memory_gib=memory_gib(), gpus=_gpus(), torch_has_cuda=_torch_has_cuda())


def installed_version(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs, as their driver tells."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=3, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ()
    found = (line.rpartition(",") for line in lines if "," in line)
    return tuple(Gpu(name=name.strip(), memory_gib=float(mib) / 1024) for name, _, mib in found)


def _torch_has_cuda() -> bool:
    """Read from the file that torch's build wrote."""
    found = util.find_spec("torch")
    version = Path(found.origin).with_name("version.py") if found and found.origin else None
    text = version.read_text(encoding="utf-8") if version and version.exists() else ""
    return re.search(r"^cuda.*=\s*['\"]", text, re.MULTILINE) is not None
