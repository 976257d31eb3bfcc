"""SIGKILL of `dvc repro` and all its processes at random moments, and again until the pipeline is at its end."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.kills import left_over
from benchmarks.faults.pipeline import OUTPUTS, differing, files_of, small_changes
from detoxlens.common.errors import UserError
from detoxlens.doctor.locks import check_locks
from detoxlens.params.edit import change_params
from detoxlens.params.load import read_yaml

FILES = (*OUTPUTS, "dvc.lock")


@dataclass(kw_only=True)
class DvcKills:
    """What came of the kills."""

    num_kills: int = 0
    num_pipelines: int = 0
    num_files: int = 0
    torn_locks: int = 0
    """Times that DVC refused to start until the file that `detoxlens doctor` names was removed."""
    different: list[str] = field(default_factory=list)
    """Files, dvc.lock among them, that are not those of an uninterrupted `dvc repro`."""
    left_over: list[str] = field(default_factory=list)


def kill_dvc(root: Path, work: Path, *, num_kills: int, seed: int) -> DvcKills:
    """A pipeline by `dvc repro` uninterrupted, then others that are killed until there were enough kills."""
    reference = make_checkout(root, work / "by-dvc")
    seconds = time.monotonic()
    _repro(reference, None, found := DvcKills())
    seconds = time.monotonic() - seconds
    expected, rng = files_of(reference, FILES), random.Random(seed)
    found.num_files = len(expected)
    span = 2 * seconds / len(read_yaml(reference / "dvc.lock")["stages"])
    while found.num_kills < num_kills:
        project = make_checkout(root, work / f"by-dvc-killed-{found.num_pipelines}")
        while not _repro(project, rng.uniform(0, span) if found.num_kills < num_kills else None, found):
            pass
        found.num_pipelines += 1
        found.different += differing(expected, files_of(project, FILES))
        found.left_over += left_over(project)
        print(f"{found.num_kills} kills of dvc, {found.num_pipelines} pipelines at their end", flush=True)
        shutil.rmtree(project)
    return found


def make_checkout(root: Path, folder: Path) -> Path:
    """A clone of what is committed in `root`, on a small scale, without results."""
    subprocess.run(["git", "clone", "--quiet", str(root.resolve()), str(folder)], check=True)
    for name in ("dvc.lock", "reports", "code"):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    change_params(folder / "params.yaml", small_changes())
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "small"], check=True)
    return folder


def _repro(project: Path, moment: float | None, found: DvcKills) -> bool:
    """`dvc repro`, killed so long after its first stage began; True if it came to its end."""
    if (check := check_locks(project)).status == "broken":
        found.torn_locks += 1
        subprocess.run(check.remedy, shell=True, cwd=project, check=True)
    log, begun = Path(f"{project}.log"), None
    with log.open("wb") as out:
        command = [sys.executable, "-u", "-m", "dvc", "repro"]
        process = subprocess.Popen(
            command, cwd=project, env=_environment(project), stdout=out, stderr=out, start_new_session=True
        )
    while process.poll() is None:
        if begun is None and re.search("Running stage", log.read_text(errors="replace")):
            begun = time.monotonic()
        if moment is not None and begun is not None and time.monotonic() - begun >= moment:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found.num_kills += 1
            return False
        time.sleep(0.1)
    if process.returncode:
        raise UserError(f"dvc repro in {project} ended with {process.returncode}: {log.read_text()[-1500:]}")
    return True


def _environment(project: Path) -> dict[str, str]:
    """This interpreter's programs, the checkout's code, no hub, no store of elsewhere."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DETOXLENS_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(project / "src"), "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}
    return inherited | own
