"""Liveness of trials. A dead worker's trial is failed, and its point queued once more.

A trial names the state folder it is run from (`home`) and carries a counter that its worker raises (`beat`):

    same home    the trial's file lock says it, at once: the system releases it with the process
    another      it is taken for dead when its counter has stood still for `patience_seconds` of the observer's own
                 clock, so that no two machines' clocks are compared; works alike on databases and journal files
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)
HOME, BEAT, REASON = "home", "beat", "reason"
"""User attributes of a trial; the last says in words why it was ended or could not be trained: that is an outcome."""


def home_of(state: Path) -> str:
    """The name of a state folder: random, made once, kept in it."""
    file = state / "home-id"
    with FileLock(state / "home-id.lock"):
        if not file.exists():
            file.write_text(uuid.uuid4().hex)
        return file.read_text()


def lock_path(folder: Path, number: int) -> Path:
    """Held by the worker that runs the trial."""
    return folder / f"trial-{number:05d}.lock"


class Heart:
    """Raises the trial's counter every `seconds` while the block runs."""

    def __init__(self, trial: Trial, seconds: float):
        self._trial, self._seconds = trial, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        import optuna

        beat = 0
        while not self._stop.wait(self._seconds):
            beat += 1
            try:
                self._trial.set_user_attr(BEAT, beat)
            except optuna.exceptions.UpdateFinishedTrialError:
                return  # taken for dead; its worker learns that when it ends
            except optuna.exceptions.StorageInternalError:
                log.warning("trial %d: the storage does not answer; trying on", self._trial.number)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()


class Watchdog:
    """Fails trials whose worker is gone; to be asked now and then by one process, under the queue's lock."""

    def __init__(self, folder: Path, home: str, patience_seconds: float):
        self._folder, self._home, self._patience_seconds = folder, home, patience_seconds
        self._seen: dict[int, tuple[object, float]] = {}  # trial -> its counter, and since when by our clock

    def fail_abandoned(self, study: Study) -> None:
        """Fails the abandoned trials, and queues each again unless it is a second attempt already."""
        for trial in running(study):
            if trial.user_attrs.get(HOME) != self._home:
                if self._is_silent(trial):
                    _fail_and_retry(study, trial)
                continue
            try:
                with FileLock(lock_path(self._folder, trial.number), timeout=0):
                    if trial.number in [t.number for t in running(study)]:  # it may have ended since it was listed
                        _fail_and_retry(study, trial)
            except Timeout:
                continue  # alive

    def _is_silent(self, trial: FrozenTrial) -> bool:
        beat, now = trial.user_attrs.get(BEAT), time.monotonic()
        if trial.number not in self._seen or self._seen[trial.number][0] != beat:
            self._seen[trial.number] = (beat, now)
        return now - self._seen[trial.number][1] > self._patience_seconds


def running(study: Study) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if t.state.name == "RUNNING"]


def _fail_and_retry(study: Study, trial: FrozenTrial) -> None:
    import optuna

    try:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return  # it has ended meanwhile, or an observer on another machine was faster
    retry(study, trial, max_retry=1)


def retry(study: Study, trial: FrozenTrial, *, max_retry: int | None) -> None:
    """Queues the trial's point again; with `max_retry`, only if not so many of its attempts have died before.

    Without it the trial was interrupted, which counts as no death.
    """
    import optuna

    if not trial.params or REASON in trial.user_attrs:
        return  # it had no point yet, or its outcome is known
    history = trial.system_attrs.get("retry_history", [])
    if max_retry is not None:
        history = [*history, trial.number]
        if len(history) > max_retry:
            return
    first = trial.system_attrs.get("failed_trial", trial.number)
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs={"failed_trial": first, "retry_history": history},  # Optuna's own names
        )
    )
