"""A stage on a Ray cluster: a task per share, then one that puts the shares together, all calling the stage itself.

What a task has finished is in the stage's scratch folder. So a task whose worker died may be run again, anywhere, and a
command that was stopped resumes where it was, with Ray or without.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from detoxlens.common.checkout import check_own_code
from detoxlens.common.console import set_up_console
from detoxlens.common.errors import UserError
from detoxlens.jobs.cluster import (
    Resources,
    Secrets,
    check_fits,
    cluster,
    nodes_of,
    num_at_once,
    result_of,
    secrets_of,
    stop,
)
from detoxlens.jobs.progress import BarState, progress, send_bars_to
from detoxlens.jobs.shares import Share
from detoxlens.params.load import Params
from detoxlens.params.reads import module_of
from detoxlens.scorers import KEY_VARIABLES

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
NUM_RETRIES = 3
"""How often a task whose worker died is run again."""
UNITS = {"generate": "completions", "score": "verdicts", "attribute": "completions"}
"""What the stages that can be shared count."""


@dataclass(frozen=True, kw_only=True)
class RayShares:
    """How a stage is cut, and what each share gets."""

    count: int | None
    """None: as many as the cluster runs at the same time."""
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every task is given, by value: no node reads params.yaml."""

    root: Path
    params: Params
    stage: str
    model: str
    variant: str
    keys: Secrets


def run_shares(root: Path, params: Params, stage: str, *, model: str, variant: str, shares: RayShares) -> None:
    """Runs the stage on `cluster.cluster`.

    Raises:
        UserError: Ray is not installed, the cluster cannot give a share its resources, or what the stage itself raises.
    """
    keys = secrets_of(os.environ, KEY_VARIABLES)
    job = Job(root=root, params=params, stage=stage, model=model, variant=variant, keys=keys)
    with cluster() as ray:
        nodes = nodes_of(ray)
        check_fits(nodes, shares.resources, "share")
        count = shares.count or num_at_once(nodes, shares.resources)
        board = ray.remote(num_cpus=0)(Board).remote()
        title = f"{stage} {model}/{variant}"

        def start(share: Share | None) -> Any:
            task = ray.remote(_run).options(
                name=title if share is None else f"{title} {share}",
                max_retries=NUM_RETRIES,
                num_cpus=shares.resources.num_cpus,
                num_gpus=shares.resources.num_gpus,
            )
            return task.remote(job, share, board)

        with _shown(ray, board, title, count, UNITS[stage]) as show:
            _wait(ray, [start(Share(number, count)) for number in range(count)], show, level=logging.WARNING)
        _wait(ray, [start(None)], lambda: None, level=logging.INFO)


class Board:
    """An actor: the newest state of every bar of every share."""

    def __init__(self) -> None:
        self._bars: dict[tuple[int, str], BarState] = {}

    def put(self, share: int, state: BarState) -> None:
        """A bar of a share as it stands now."""
        self._bars[share, state.title] = state

    def read(self) -> list[BarState]:
        """All of them."""
        return list(self._bars.values())


class _Kept(logging.Handler):
    """Level and text of what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((record.levelno, record.getMessage()))


def _run(job: Job, share: Share | None, board: Any) -> list[tuple[int, str]]:
    """In a Ray worker: the stage, or a share of it. Returns what it said, which Ray would show late or not at all."""
    set_up_console()
    check_own_code(job.root)
    ours, kept = logging.getLogger("detoxlens"), _Kept()
    ours.handlers, ours.propagate = [kept], False

    def send(state: BarState) -> None:
        if share is not None:
            board.put.remote(share.index, state)

    stage = importlib.import_module(module_of(job.stage))
    with job.keys.in_environment(), send_bars_to(send):
        stage.run(job.root, job.params, model=job.model, variant=job.variant, share=share)
    return kept.messages


def _wait(ray: ModuleType, tasks: Sequence[Any], show: Callable[[], None], *, level: int) -> None:
    """Until all tasks have ended well; on an error or Ctrl-C the others are stopped. Repeats what they said."""
    left = list(tasks)
    try:
        while left:
            ended, left = ray.wait(left, timeout=POLL_SECONDS)
            for task in ended:
                for said, message in _outcome(ray, task):
                    if said >= level:
                        log.log(said, "%s", message)
            show()
    except BaseException:
        stop(ray, left, force=True)  # what they have finished is on disk
        raise


def _outcome(ray: ModuleType, task: Any) -> list[tuple[int, str]]:
    try:
        return result_of(ray, task)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as e:
        raise UserError(
            f"A Ray task died {NUM_RETRIES + 1} times ({type(e).__name__}): most often its node has too little memory "
            "for it. Ask for more with --cpus-per-share or --gpus-per-share, so that fewer run side by side. What the "
            "shares have finished is kept; the same command resumes from there."
        ) from None


@contextlib.contextmanager
def _shown(ray: ModuleType, board: Any, title: str, count: int, unit: str) -> Iterator[Callable[[], None]]:
    """One bar for all shares; bars in other units, such as questions to a service, stand beside it as a note."""
    with progress(title, total=0, unit=unit) as bar:
        shown = 0

        def show() -> None:
            nonlocal shown
            try:
                readings = ray.get(board.read.remote(), timeout=POLL_SECONDS)
            except ray.exceptions.RayError:  # it only shows progress; the shares run without it
                return
            main = [r for r in readings if r.unit == unit]
            others = [r for r in readings if r.unit != unit]
            note = [f"{len(main)} of {count} shares begun"]
            for other in dict.fromkeys(r.title for r in others):
                same = [r for r in others if r.title == other]
                done, total = sum(r.num_done for r in same), sum(r.total for r in same)
                note.append(f"{other} {done}/{total} {same[0].unit}")
            done = sum(r.num_done for r in main)
            bar.advance(done - shown, note=", ".join(note), total=sum(r.total for r in main))
            shown = done

        yield show
        show()
