"""`detoxlens study <name>`: materials, forecast, pipeline, results; interrupted anywhere, the same command resumes."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import Layout, read_json, write_json
from detoxlens.common.errors import UserError
from detoxlens.common.machine import memory_gib, num_cores
from detoxlens.params.load import load_params
from detoxlens.params.presets import apply_preset
from detoxlens.pipeline.repro import stage_environment
from detoxlens.study.materials import fetch, install, train_scorers, write_prompts
from detoxlens.study.seeds import add_seeds
from detoxlens.study.spec import StudySpec, read_spec
from detoxlens.study.workspace import open_workspace

PUBLISHED = ("metrics.json", "table1.md", "report.md", "figures", "entropy_curves.csv", "training_curves.csv")
"""Of the study's reports: numbers, figures and sentences about them; no text of a prompt or a completion."""
PARAMS = "params.yaml"


def prepare_study(root: Path, name: str, *, num_seeds: int = 1) -> Path:
    """Fetches what is missing, opens the study's checkout with its preset applied; the folder of it.

    Args:
        root: the checkout whose commit is run.
        name: of the study.
        num_seeds: of each variant that is trained, placebos aside.

    Raises:
        UserError: see `materials`, `workspace` and `seeds`.
    """
    spec = read_spec(root, name)
    for package in spec.packages:
        install(package)
    fetch(root, spec.files)
    folder = open_workspace(root, name)
    apply_preset(folder, folder / PARAMS, name)
    add_seeds(folder / PARAMS, num_seeds)
    for prompts in spec.prompts:
        write_prompts(folder, prompts)
    return folder


def run_study(root: Path, name: str, folder: Path, *, num_seeds: int = 1) -> Path:
    """Trains the scorers, runs the pipeline, publishes the results; the folder of them.

    Args:
        root: the checkout that gets the results.
        name: of the study.
        folder: as `prepare_study` left it.
        num_seeds: that it was prepared with.

    Raises:
        UserError: the pipeline failed; what it finished is kept.
    """
    spec, sessions = read_spec(root, name), Layout(folder).state / "study-sessions.json"
    with on_record(sessions):
        train_scorers(folder, spec.scorers, num_threads=load_params(folder / PARAMS).run.num_threads)
        done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, env=stage_environment(), check=False)
    if done.returncode:
        raise UserError(
            f"The study's pipeline in {folder} stopped with status {done.returncode}; what it finished is kept, and "
            "the same command resumes."
        )
    typed = f"detoxlens study {name}" + (f" --seeds {num_seeds}" if num_seeds > 1 else "")
    return publish_study(folder, root / "reports/studies" / name, typed, spec, read_json(sessions))


@contextmanager
def on_record(sessions: Path, *, every_seconds: float = 20.0) -> Iterator[None]:
    """Adds the wall seconds of what it encloses to the list in `sessions`, and keeps them up to date meanwhile: of a
    session that is killed at most `every_seconds` are missing."""
    earlier: list[float] = read_json(sessions) if sessions.exists() else []
    started, ended = time.monotonic(), threading.Event()

    def write() -> None:
        write_json(sessions, [*earlier, round(time.monotonic() - started, 1)])

    def keep_writing() -> None:
        while not ended.wait(every_seconds):
            write()

    writer = threading.Thread(target=keep_writing, daemon=True)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()
        write()


def publish_study(folder: Path, target: Path, typed: str, spec: StudySpec, seconds: list[float]) -> Path:
    """Copies the numbers and figures, params.yaml, and study.json: the command, the code, the time, the machine.

    Args:
        folder: the study's checkout, its report made.
        target: its `PUBLISHED` and `PARAMS` are replaced; what else lies there, such as a pilot, stays.
        typed: the command that ran it.
        spec: of the study.
        seconds: wall seconds of each run that it took.
    """
    target.mkdir(parents=True, exist_ok=True)
    for part in PUBLISHED:
        source = folder / "reports" / part
        if (target / part).is_dir():
            shutil.rmtree(target / part)
        if source.is_dir():
            shutil.copytree(source, target / part)
        elif source.exists():
            shutil.copyfile(source, target / part)
    shutil.copyfile(folder / PARAMS, target / PARAMS)
    write_json(target / "study.json", study_record(folder, typed, spec, seconds))
    return target


def study_record(folder: Path, typed: str, spec: StudySpec, seconds: list[float]) -> Mapping[str, Any]:
    """What study.json holds."""
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    memory = memory_gib()
    return {
        "command": typed,
        "commit": head.stdout.strip(),
        "wall_seconds": seconds,
        "machine": {"cpu": cpu_name(), "num_cores": num_cores(), "memory_gib": memory and round(memory, 1)},
        "versions": {p: metadata.version(p) for p in ("torch", "transformers", "peft", "trl")}
        | {"python": platform.python_version()},
        "files": {place: wanted.sha256 for place, wanted in spec.files.items()},
        "packages": {f"{p.name}=={p.version}": p.sha256 for p in spec.packages},
        "scorers": {n: _version(folder / "data/recorded/scorers" / n / "calibration.json") for n in spec.scorers},
    }


def cpu_name() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(calibration: Path) -> str | None:
    return json.loads(calibration.read_text(encoding="utf-8"))["scorer_version"] if calibration.exists() else None
