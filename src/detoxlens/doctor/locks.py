"""Files that a killed DVC or git leaves behind and then refuses to work with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil

from detoxlens.doctor.check import Check, some


def check_locks(root: Path) -> Check:
    """DVC's list of read and written paths is whole, and git's index is free.

    DVC writes `.dvc/tmp/rwlock` in place: a kill in that instant leaves half a JSON file, and every command then ends
    with "JSON structure is corrupted". Git keeps `index.lock` until its process ends. Either may be deleted once no
    process of its program works here; which do is looked up, since a torn file no longer says.
    """
    rwlock, index = root / ".dvc/tmp/rwlock", _git_folder(root) / "index.lock"
    torn = [rwlock] if rwlock.exists() and not _is_whole(rwlock) else []
    left = torn + ([index] if index.exists() else [])
    if not left:
        return Check(name="locks", status="ok", detail="DVC's and git's lock files are in order")
    program = "dvc" if torn else "git"
    names = [str(path) for path in left]
    what = "half written, and DVC refuses to run" if torn else "left of a git command, and git refuses to write"
    at_work = processes_of(program, root)
    if at_work:
        detail = f"{some(names)}: {program} is at work here ({some(at_work)}); wait for it, or stop it"
        return Check(name="locks", status="warning", detail=detail, remedy="detoxlens doctor")
    detail = f"{some(names)}: {what}; no process of {program} is at work here, and nothing is lost with it"
    return Check(name="locks", status="broken", detail=detail, remedy=f"rm {' '.join(str(path) for path in left)}")


def _git_folder(root: Path) -> Path:
    """Where git keeps its index for this checkout; `.git` where git cannot say."""
    ask = ["git", "-C", str(root), "rev-parse", "--absolute-git-dir"]
    try:
        return Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return root / ".git"


def _is_whole(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def processes_of(program: str, root: Path) -> list[str]:
    """`process 4711 (dvc repro)` for each process of `dvc` or `git` whose working folder lies in `root`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        command, folder = process.info["cmdline"] or [], process.info["cwd"]
        words = [Path(word).name for word in command[:4]]
        if folder is None or program not in words:
            continue
        if Path(folder).is_relative_to(root.resolve()):
            found.append(f"process {process.info['pid']} ({' '.join(words)})")
    return found
