"""Faults other than a kill: what is full, read-only, set, locked or gone, met by the stages of a finished pipeline.

A stage ends with one paragraph, or does without what it does not need; no earlier result is touched; and once the fault
is over, the same command gives the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.kills import lost_records
from benchmarks.faults.pipeline import Stage, aside, differing, files_of, start
from benchmarks.faults.service import booked, free_port, serving
from detoxlens.params.edit import change_params
from detoxlens.scorers import remote

MODEL = "tiny-neox"
AWAY = "http://127.0.0.1:9"
"""An address at which nobody answers."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a fault.

    Outcome(fault="full disk", holds=True, detail="4 stages ended with 2 ...")
    """

    fault: str
    holds: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a stage ended."""

    stage: Stage
    code: int
    text: str


def met(
    project: Path, stages: Sequence[Stage], before: Callable[[], None] = lambda: None, *, logs: Path | None = None
) -> list[Said]:
    """The stages, one after the other; their logs lie outside the project, where the fault is not."""
    found = []
    for stage in stages:
        log = (logs or project.parent) / f"{project.name}.{stage.name}.log"
        process = start(project, stage, log, before)
        process.join()
        found.append(Said(stage=stage, code=process.exitcode or 0, text=log.read_text(errors="replace")))
    return found


def judged(fault: str, project: Path, expected: dict[str, str], said: Sequence[Said], words: str, code: int) -> Outcome:
    """Whether each stage said the words and ended with the code, and all outputs are those of the reference."""
    for one in said:
        if one.code != code or words not in one.text or "Traceback" in one.text:
            return Outcome(fault=fault, holds=False, detail=f"{one.stage} ended with {one.code}: {one.text[-600:]}")
    if different := differing(expected, files_of(project)):
        return Outcome(fault=fault, holds=False, detail=f"{len(different)} files differ: {different[:5]}")
    how = "ended with one paragraph" if code else "came to their end"
    return Outcome(fault=fault, holds=True, detail=f"{len(said)} stages {how}; {len(expected)} files as without it")


def first_failure(*outcomes: Outcome) -> Outcome:
    """The first that does not hold, else the first."""
    return next((outcome for outcome in outcomes if not outcome.holds), outcomes[0])


def full_disk(reference: Path, work: Path, expected: dict[str, str]) -> Outcome:
    """Not a byte is free, then enough is."""
    place = work / "small-disk"
    place.mkdir()
    size = 3 * sum(p.stat().st_size for p in reference.rglob("*") if p.is_file())
    with mounted(["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], place):
        project = copied(reference, place / "project")
        stages = [
            Stage("base", MODEL),
            *(Stage(n, MODEL, "ft") for n in ("finetune", "generate", "score", "attribute")),
        ]
        with filled(place / "filler"):
            during = met(project, stages, logs=work)
        first = judged("full disk", project, expected, during, "The disk is full", 2)
        again = judged("full disk", project, expected, met(project, stages, logs=work), "", 0)
    return first_failure(first, again)


def read_only_folder(reference: Path, work: Path, expected: dict[str, str]) -> Outcome:
    """The folder of a variant's outputs takes no file, then it does."""
    project = copied(reference, work / "read-only")
    place, stages = (
        project / "outputs" / MODEL / "ft",
        [Stage(n, MODEL, "ft") for n in ("generate", "score", "attribute")],
    )
    with mounted(["--bind", str(place), str(place)], place):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        first = judged("read-only folder", project, expected, met(project, stages), f"outputs/{MODEL}/ft", 2)
    return first_failure(first, judged("read-only folder", project, expected, met(project, stages), "", 0))


def set_clock(reference: Path, work: Path, expected: dict[str, str]) -> Outcome:
    """The wall clock, as Python reads it, goes forth and back by 400 days twice a second."""

    def unsteady() -> None:
        wall, wall_ns = time.time, time.time_ns

        def jump() -> int:
            return 400 * 86400 * (1 if int(2 * time.monotonic()) % 2 else -1)

        time.time = lambda: wall() + jump()
        time.time_ns = lambda: wall_ns() + jump() * 10**9

    project = copied(reference, work / "clock")
    stages = [Stage("finetune", MODEL, "ft"), Stage("rl", MODEL, "rl"), Stage("generate", MODEL, "rl"), Stage("report")]
    return judged("clock set forth and back", project, expected, met(project, stages, unsteady), "", 0)


def locked_store(reference: Path, work: Path, expected: dict[str, str]) -> Outcome:
    """Another process holds MLflow's database for as long as the report takes; then the records are sent."""
    project = copied(reference, work / "locked")
    aside(lost_records, project)  # makes the store
    with contextlib.closing(sqlite3.connect(project / ".detoxlens/mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        said = met(project, [Stage("report")])
    outcome = judged("store locked", project, expected, said, "run the same command again", 0)
    lost = aside(lost_records, project)
    return Outcome(fault="store locked", holds=False, detail=f"{lost} records lost") if lost else outcome


def server_gone(reference: Path, work: Path, expected: dict[str, str]) -> Outcome:
    """MLflow's server does not answer: the results are made, the records wait."""

    def away() -> None:
        os.environ |= {"MLFLOW_TRACKING_URI": AWAY, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

    project = copied(reference, work / "gone")
    outcome = judged("server gone", project, expected, met(project, [Stage("report")], away), "Start the server", 0)
    waiting = [p for p in (project / ".detoxlens/pending-runs").glob("*/*.json") if p.parent.name != "own"]
    return outcome if waiting else Outcome(fault="server gone", holds=False, detail="no record waits")


def scorer_gone(reference: Path, work: Path, expected: dict[str, str]) -> Outcome:
    """The paid scoring service goes away in the middle of its answers, and comes back: no text is paid for twice."""
    fault, port, stage = "paid scorer gone midway", free_port(), Stage("score", MODEL, "ft")
    scorers = ["profanity_check", f"perspective:en@http://127.0.0.1:{port}/analyze"]
    uninterrupted, project = (copied(reference, work / name) for name in ("scorer-stays", "scorer-goes"))
    for folder in (uninterrupted, project):
        change_params(folder / "params.yaml", {("toxicity", "scorers"): scorers})
    with serving(port, at_once := work / "at-once.jsonl"):
        met(uninterrupted, [stage])
    texts, books = booked(at_once), work / "books.jsonl"
    with serving(port, books, until=len(texts) // 2):
        during = met(project, [stage], _impatient)
    first = judged(fault, project, expected, during, "cannot be reached", 2)
    with serving(port, books):
        after = met(project, [stage])
    outcome = first_failure(first, judged(fault, project, files_of(uninterrupted), after, "", 0))
    if outcome.holds and (not texts or sorted(booked(books)) != sorted(texts)):
        detail = f"{len(booked(books))} answers for {len(texts)} texts"
        return Outcome(fault=fault, holds=False, detail=detail)
    return outcome


def _impatient() -> None:
    """Eight attempts in a moment, not in a minute."""
    remote.MAX_WAIT_SECONDS = 0.05


CASES = (full_disk, read_only_folder, set_clock, locked_store, server_gone, scorer_gone)


def copied(reference: Path, folder: Path) -> Path:
    """A copy of the finished pipeline."""
    return Path(shutil.copytree(reference, folder, symlinks=True))


@contextlib.contextmanager
def mounted(arguments: Sequence[str], place: Path) -> Iterator[None]:
    """A file system at `place` while the block runs; needs the right to mount."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def filled(filler: Path) -> Iterator[None]:
    """Takes all that is free on the disk of `filler` while the block runs."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()
