"""Workers that join a study by name and try points until it has its trials.

A trial counts when it is complete, or when its point cannot be trained (`reason`). One whose worker died or was
interrupted does not: it is failed and queued again. On this machine a dead worker is known by the lock of its trial,
which the system releases with the process; on others by its silence (storages with a heartbeat).
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from detoxlens.artifacts import Layout
from detoxlens.config import Params
from detoxlens.errors import UserError
from detoxlens.reporting.config import ReportConfig
from detoxlens.sweep.config import Method, SweepConfig
from detoxlens.sweep.space import choose_variant, decode, params_at, space_of, suggest
from detoxlens.sweep.storage import default_url, open_storage, open_study
from detoxlens.sweep.trial import AS_IF_TRAINED, check_metrics, file_sha256, make_reference, run_trial, val_metrics

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)
GIVE_UP_AFTER = 5
"""Trials at a study's start that all failed: then it is not the points that are wrong."""
POLL_SECONDS = 2.0


class HopelessPointError(Exception):
    """The point cannot be trained or measured; the sweep goes on."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep, checked and ready to run; made by `plan`."""

    root: Path
    params_path: Path
    params: Params
    config: SweepConfig
    space: Mapping[str, Any]
    name: str
    method: Method
    models: Sequence[str]
    variant: str
    url: str
    definition: Mapping[str, Any]
    reference: Path
    baseline: Mapping[str, float]
    """The metrics of `it`, averaged over models."""

    @property
    def folder(self) -> Path:
        return Layout(self.root).state / "sweeps" / self.name

    def open(self) -> Study:
        """The study, with the sampler; UserError where it cannot be reached or is another one."""
        from detoxlens.sweep.sampler import make_sampler

        state = Layout(self.root).state
        storage = open_storage(self.url, state, heartbeat_seconds=self.config.heartbeat_seconds)
        sampler = make_sampler(self.config)
        return open_study(storage, self.url, self.name, state, definition=self.definition, sampler=sampler)


def plan(
    root: Path, params_path: Path, params: Params, *, method: Method, models: Sequence[str], variant: str | None,
    name: str | None, url: str | None,
) -> Sweep:  # fmt: skip
    """Checks everything that can be checked before the first trial, cheap things first.

    Raises:
        UserError: what is wrong, where.
    """
    config = params.section("sweep", SweepConfig)
    models = list(models) or params.run.models
    for model in models:
        params.model(model)
    variant = choose_variant(params, method, variant)
    space = space_of(config, params, method, models, variant)
    name = name or "-".join([method, *models])
    if not all(c.isalnum() or c in "-_." for c in name) or not name[0].isalnum():
        raise UserError(f"--study {name!r}: letters, digits, '-', '_' and '.' make a name; it becomes a folder's.")
    definition = definition_of(root, params, config, space, method=method, models=models, variant=variant)
    state, url = Layout(root).state, url or default_url(Layout(root).state)
    storage = open_storage(url, state, heartbeat_seconds=config.heartbeat_seconds)  # unreachable: said before the work
    storage.remove_session()
    reference = make_reference(root, state / "sweeps" / name, params, models)
    by_model = [val_metrics(reference, params, model, AS_IF_TRAINED, stand_in=True) for model in models]
    check_metrics(config, by_model[0], params.path)
    return Sweep(
        root=root, params_path=params_path, params=params, config=config, space=space, name=name, method=method,
        models=models, variant=variant, url=url, definition=definition, reference=reference, baseline=mean(by_model),
    )  # fmt: skip


def definition_of(
    root: Path, params: Params, config: SweepConfig, space: Mapping[str, Any], *, method: Method,
    models: Sequence[str], variant: str,
) -> dict[str, Any]:  # fmt: skip
    """All that makes two trials comparable: what is searched and wanted, and every other setting and input."""
    return {
        "objectives": dict(config.objectives),
        "constraints": {k: v.model_dump(exclude_none=True) for k, v in config.constraints.items()},
        "space": {name: distribution.model_dump(mode="json") for name, distribution in space.items()},
        "sampler": {"name": config.sampler, "seed": config.seed, "num_startup_trials": config.num_startup_trials},
        "method": method,
        "variant": variant,
        **setting_of(root, params, list(space), models=models, variant=variant),
    }


def setting_of(
    root: Path, params: Params, swept: Sequence[str], *, models: Sequence[str], variant: str
) -> dict[str, Any]:
    """What, besides its point, decides a trial's numbers: the params that are not swept, and the data."""
    from detoxlens.tracking import comparable_params

    settings = {}
    primary = params.section("report", ReportConfig).primary_split
    for model in models:
        settings[model] = comparable_params(params, model=model, variant=variant)
        settings[model]["report"] = {"primary_split": primary}  # which prompts `val` metrics are of
        settings[model]["variant"].pop("overrides", None)  # they are merged into their sections
        for path in swept:
            *parents, last = path.split(".")
            node = settings[model]
            for key in parents:
                node = node.get(key, {})
            node.pop(last, None)
    files = Layout(root).prompts, Layout(root).dialogues
    return {"settings": settings, "inputs": {path.name: file_sha256(path) for path in files if path.exists()}}


def run_workers(
    sweep: Sweep, *, num_trials: int, num_workers: int, track: bool, on_trial: Callable[[Study, int], None]
) -> None:
    """Runs the study to `num_trials` counted trials, in this process or in `num_workers` processes that join it.

    Raises:
        UserError: all workers ended before the study had its trials.
    """
    if num_workers == 1:
        work(sweep, num_trials=num_trials, on_trial=on_trial)
        return
    sweep.open()  # made before the workers look for it
    command = worker_command(sweep, num_trials, track)
    workers = [  # in sessions of their own: Ctrl-C reaches them once, through us
        subprocess.Popen(command, cwd=sweep.root, start_new_session=True) for _ in range(num_workers)
    ]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        raise
    study = sweep.open()
    if num_counted(study) < num_trials:
        raise UserError(
            f"--study {sweep.name}: its workers ended (exit codes {', '.join(map(str, codes))}) with "
            f"{num_counted(study)} of {num_trials} trials done; what they said stands above. The same command goes "
            "on from there."
        )


def worker_command(sweep: Sweep, num_trials: int, track: bool) -> list[str]:
    """What joins the study from another process, here or on another machine with the same files and storage."""
    return [
        sys.executable, "-m", "detoxlens", "--root", str(sweep.root), "--params", str(sweep.params_path),
        "--track" if track else "--no-track", "sweep",
        "--method", sweep.method, "--models", ",".join(sweep.models), "--variant", sweep.variant,
        "--trials", str(num_trials), "--study", sweep.name, "--storage", sweep.url, "--join",
    ]  # fmt: skip


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """A polite kill ends a sweep as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def work(sweep: Sweep, *, num_trials: int, on_trial: Callable[[Study, int], None]) -> None:
    """Tries points until the study has `num_trials`; `on_trial` is called with the number of each that ended here."""
    study = sweep.open()
    queue = FileLock(sweep.folder / "queue.lock")
    while True:
        queue.acquire()
        try:
            retry_abandoned(study, sweep.folder)
            num_running = len(
                running(study)
            )  # before counting: one that ends in between is then counted twice, not never
            missing = num_trials - num_counted(study)
            if missing <= 0:
                return
            give_up_if_all_fail(study, sweep.name)
            if missing > num_running:  # a trial is created before the queue is free again
                number = run_one(sweep, study, queue)
                on_trial(study, number)
                tell(study, number, num_trials)
                continue
        finally:
            if queue.is_locked:
                queue.release()
        time.sleep(POLL_SECONDS)  # the last ones are being tried by others, who may die


def run_one(sweep: Sweep, study: Study, queue: FileLock) -> int:
    """Tries one point, releasing the queue once its trial exists; returns the trial's number."""
    numbers: list[int] = []
    with contextlib.ExitStack() as held:  # the trial's lock, until its outcome is in the storage

        def objective(trial: Trial) -> list[float]:
            numbers.append(trial.number)
            held.enter_context(FileLock(lock_path(sweep.folder, trial.number)))
            queue.release()
            return measure(sweep, trial)

        try:
            study.optimize(objective, n_trials=1, catch=(HopelessPointError,))
        except KeyboardInterrupt:
            if numbers:
                retry(study, study.trials[numbers[0]], max_retry=None)
            raise
    return numbers[0]


def measure(sweep: Sweep, trial: Trial) -> list[float]:
    """The objectives of the sampler's point; its metrics and constraints go into the trial."""
    from detoxlens.sweep.sampler import trial_seed

    point = suggest(trial, sweep.space)
    trial.set_user_attr("sampler_seed", trial_seed(sweep.config.seed, trial.number))
    try:
        by_model = run_trial(
            sweep.root,
            sweep.folder / f"trial-{trial.number:05d}",
            sweep.reference,
            params_at(sweep.params, sweep.variant, point),
            method=sweep.method,
            models=sweep.models,
            variant=sweep.variant,
        )
        metrics = mean(list(by_model.values()))
        trial.set_user_attr("metrics", metrics)
        for name, bounds in sweep.config.constraints.items():
            value = metric(metrics, name)
            if bounds.min is not None:
                trial.set_constraint(f"{name} >= {bounds.min:g}", bounds.min - value)
            if bounds.max is not None:
                trial.set_constraint(f"{name} <= {bounds.max:g}", value - bounds.max)
        return [metric(metrics, name) for name in sweep.config.objectives]
    except UserError as e:
        trial.set_user_attr("reason", str(e))
        raise HopelessPointError(str(e)) from e


def mean(by_model: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each metric averaged over the models that all report it."""
    shared = [name for name in by_model[0] if all(name in metrics for metrics in by_model)]
    return {name: sum(metrics[name] for metrics in by_model) / len(by_model) for name in shared}


def metric(metrics: Mapping[str, float], name: str) -> float:
    """Raises UserError where a trial has no such number, e.g. because every completion is empty."""
    if name not in metrics:
        raise UserError(f"{name} could not be measured; the trial reports {', '.join(sorted(metrics))}.")
    return metrics[name]


def num_counted(study: Study) -> int:
    """Trials that are done: complete, or of a point that cannot be trained."""
    return sum(t.state.name == "COMPLETE" or "reason" in t.user_attrs for t in study.get_trials(deepcopy=False))


def running(study: Study) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if t.state.name == "RUNNING"]


def give_up_if_all_fail(study: Study, name: str) -> None:
    """Raises UserError when the first `GIVE_UP_AFTER` trials, and all since, could not be trained."""
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" or "reason" in t.user_attrs]
    if len(ended) >= GIVE_UP_AFTER and all("reason" in t.user_attrs for t in ended):
        raise UserError(
            f"--study {name}: all {len(ended)} trials failed, the last with: {ended[-1].user_attrs['reason']}"
        )


def retry_abandoned(study: Study, folder: Path) -> None:
    """Fails the trials whose worker is gone, and queues each again, once."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in running(study):
        path = lock_path(folder, trial.number)
        if not path.exists():
            continue  # a worker's of another machine
        try:
            with FileLock(path, timeout=0):
                if trial.number in [t.number for t in running(study)]:  # it may have ended since it was listed
                    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                    retry(study, study.trials[trial.number], max_retry=1)
        except Timeout:
            continue  # alive


def retry(study: Study, trial: FrozenTrial, *, max_retry: int | None) -> None:
    """Queues the trial's point again; with `max_retry`, only if it is the first of its retries to fall."""
    import optuna

    if not trial.params:
        return  # ended before it had a point
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=max_retry)(study, trial)


def lock_path(folder: Path, number: int) -> Path:
    """Held by the worker that runs the trial."""
    return folder / f"trial-{number:05d}.lock"


def tell(study: Study, number: int, num_trials: int) -> None:
    """One line per trial, with the time the rest will take."""
    trial = study.trials[number]
    done = num_counted(study)
    if trial.values is None:
        said = f"failed: {trial.user_attrs.get('reason', 'see above')}"
    else:
        said = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(study.metric_names or (), trial.values, strict=True)
        )
        said += "" if all(v <= 0 for v in trial.constraints.values()) else " (infeasible)"
    seconds = [t.duration.total_seconds() for t in study.trials if t.duration is not None]
    left = max(0, num_trials - done) * sum(seconds) / len(seconds) / max(1, len(running(study)) + 1)
    log.info("trial %d, %d of %d done, about %.0f min left: %s", number, done, num_trials, left / 60, said)


def point_of(sweep_definition: Mapping[str, Any], trial: FrozenTrial) -> dict[str, Any]:
    """The trial's point in the values that params.yaml takes."""
    from detoxlens.config import parse
    from detoxlens.sweep.config import Choices

    space = {
        name: parse(Choices, d, name) if d["type"] == "categorical" else d
        for name, d in sweep_definition["space"].items()
    }
    return decode(trial.params, space)
