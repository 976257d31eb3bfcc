"""SIGKILL at random moments of every stage: none loses what it has finished, or leaves half a file as a result."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.pipeline import Stage, aside, differing, files_of, make_project, stages_of, start
from detoxlens.common.errors import UserError
from detoxlens.params.load import load_params

LATEST = 1.1
"""A stage is killed at a moment between its start and so many times the seconds that it took uninterrupted."""


@dataclass(kw_only=True)
class Kills:
    """What came of the kills."""

    num_kills: int = 0
    num_pipelines: int = 0
    """That got to their end."""
    by_stage: dict[str, int] = field(default_factory=dict)
    half_written: list[str] = field(default_factory=list)
    """Outputs that were there after a kill and are not the reference's."""
    different: list[str] = field(default_factory=list)
    """Outputs at the end that are not the reference's."""
    left_over: list[str] = field(default_factory=list)
    """Unfinished work and partial files at the end."""
    lost_records: int = 0
    """Executions of stages that were on record and are not in MLflow at the end."""


def kill_stages(
    root: Path, work: Path, expected: dict[str, str], seconds: dict[Stage, float], *, num_kills: int, minutes: float,
    seed: int,
) -> Kills:  # fmt: skip
    """Pipelines whose stages are killed again and again until their end, as many as it takes for so many kills.

    Args:
        root: repository root.
        work: where the pipelines lie; each is deleted when it has been compared.
        expected: `files_of` the uninterrupted pipeline.
        seconds: what each stage took in it.
        num_kills: no kill after so many,
        minutes: or after so long.
        seed: of the moments.
    """
    found, rng, started = Kills(), random.Random(seed), time.monotonic()
    while _go_on(found, num_kills, minutes, started):
        project = make_project(root, work / f"killed-{found.num_pipelines}")
        for stage in stages_of(load_params(project / "params.yaml")):
            ended = False
            while not ended:
                moment = rng.uniform(0, LATEST * seconds[stage]) if _go_on(found, num_kills, minutes, started) else None
                ended = _attempt(project, stage, moment, expected, found)
        found.num_pipelines += 1
        found.different += differing(expected, files_of(project))
        found.left_over += left_over(project)
        found.lost_records += aside(lost_records, project)
        print(f"{found.num_kills} kills, {found.num_pipelines} pipelines at their end", flush=True)
        shutil.rmtree(project)
    return found


def _go_on(found: Kills, num_kills: int, minutes: float, started: float) -> bool:
    return found.num_kills < num_kills and time.monotonic() - started < 60 * minutes


def _attempt(project: Path, stage: Stage, moment: float | None, expected: dict[str, str], found: Kills) -> bool:
    """The stage, killed at the moment; True if it came to its end before."""
    process = start(project, stage, log := project.with_suffix(".log"))
    process.join(moment)
    if process.is_alive():
        process.kill()
        process.join()
        found.num_kills += 1
        found.by_stage[stage.name] = found.by_stage.get(stage.name, 0) + 1
        there = files_of(project)
        found.half_written += [f"{stage}: {path}" for path in there if there[path] != expected.get(path)]
        return False
    if process.exitcode:
        raise UserError(f"{stage} in {project} ended with {process.exitcode}: {log.read_text()[-1500:]}")
    return True


def left_over(project: Path) -> list[str]:
    """Unfinished work and partial files of a pipeline that has ended."""
    partial = [p for p in project.rglob(".*") if p.suffix in (".partial", ".old")]
    unfinished = [p for p in (project / ".detoxlens").glob("scratch/*/*") if p.is_dir()]
    return sorted(p.relative_to(project).as_posix() for p in [*partial, *unfinished])


def lost_records(project: Path) -> int:
    """Executions of stages that are on disk, or in MLflow, and no longer in MLflow once all records were sent."""
    from detoxlens.tracking import resolve_store, send_pending
    from detoxlens.tracking.runs import search
    from detoxlens.tracking.store import open_client

    store = resolve_store(project, {})
    query = "tags.`detoxlens.kind` = 'stage'"
    client, experiment = open_client(store)
    known = len(search(client, experiment, query)) + len(list(store.pending.glob("*.json")))
    send_pending(store)
    return known - len(search(client, experiment, query))
