"""`detoxlens sweep`: runs or joins a study, then writes what it found."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout, read_history
from detoxlens.common.errors import UserError
from detoxlens.jobs.cluster import Resources
from detoxlens.params.check import check_params
from detoxlens.params.load import load_params
from detoxlens.params.sweep import Method
from detoxlens.sweep.liveness import REASON
from detoxlens.sweep.ray_engine import run_on_ray
from detoxlens.sweep.storage import IDENTITY
from detoxlens.sweep.study import Sweep, plan, point_of, sigterm_interrupts, work
from detoxlens.sweep.workers import run_workers

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


def sweep(
    root: Path,
    params_path: Path,
    *,
    method: Method,
    models: Sequence[str],
    variant: str | None,
    num_trials: int,
    study: str | None,
    storage: str | None,
    num_workers: int,
    join: bool,
    track: bool,
    ray: Resources | None = None,
) -> Path | None:
    """Runs a sweep to `num_trials` trials; the same call again resumes where it was.

    Args:
        root: repository root.
        params_path: params.yaml; only read.
        method: `finetune` or `ppo`.
        models: keys of `models`; objectives are their mean. Empty takes `run.models`.
        variant: key of `variants`; None takes the first of the method's.
        num_trials: trials the study is to have in the end, earlier ones counted.
        study: its name; None makes one from method and models.
        storage: URL; None is the project's own SQLite file.
        num_workers: processes on this machine, or trials at once on Ray.
        join: work on a study whose results another process writes.
        track: log to MLflow.
        ray: what each trial gets of a Ray cluster; None is this machine, without Ray.

    Returns:
        The folder of the results, or None for one that joined.

    Raises:
        UserError: anything a user can fix.
    """
    params = load_params(params_path)
    check_params(params)
    os.environ.setdefault("OMP_NUM_THREADS", str(params.run.num_threads))  # read when torch loads
    with sigterm_interrupts():
        return _sweep(
            plan(root, params_path, params, method=method, models=models, variant=variant, name=study, url=storage),
            num_trials=num_trials,
            num_workers=num_workers,
            join=join,
            track=track,
            ray=ray,
        )


def _sweep(
    ready: Sweep, *, num_trials: int, num_workers: int, join: bool, track: bool, ray: Resources | None
) -> Path | None:
    """`sweep` once everything is checked."""

    def on_trial(study: Study, number: int) -> None:
        if track:
            _log_trials(ready, study, [study.trials[number]])

    if join:
        work(ready, num_trials=num_trials, on_trial=on_trial)
        return None
    if track:
        _log_trials(ready, ready.open(), [])  # the parent run, before several workers look for it
    if ray is not None:
        run_on_ray(ready, num_trials=num_trials, num_at_once=num_workers, resources=ray, on_trial=on_trial)
    else:
        run_workers(ready, num_trials=num_trials, num_workers=num_workers, track=track, on_trial=on_trial)
    return finish(ready, track=track)


def finish(ready: Sweep, *, track: bool) -> Path:
    """Writes the results, and to MLflow the trials whose workers could not."""
    from detoxlens.sweep.findings import find
    from detoxlens.sweep.results import write_results

    study = ready.open()
    if track:
        _log_trials(ready, study, study.trials)
    baseline = {name: ready.baseline[name] for name in ready.config.objectives if name in ready.baseline}
    folder = Layout(ready.root).reports / "sweep" / ready.name
    write_results(folder, find(study, ready.definition, baseline), study)
    return folder


def _log_trials(ready: Sweep, study: Study, trials: Sequence[FrozenTrial]) -> None:
    """To MLflow; a store that cannot be used costs no trial."""
    from detoxlens.tracking import TrialRun, resolve_store, write_sweep_runs

    ended = [t for t in trials if t.datetime_complete is not None and t.datetime_start is not None]
    runs = [
        TrialRun(
            number=t.number,
            params=point_of(ready.definition, t),
            metrics=t.user_attrs.get("metrics", {}),
            history=_history(ready, t.number) if t.state.name == "COMPLETE" else [],
            tags=_tags(t),
            status={"COMPLETE": "FINISHED", "PRUNED": "KILLED"}.get(t.state.name, "FAILED"),
            start_ms=int(t.datetime_start.timestamp() * 1000),
            end_ms=int(t.datetime_complete.timestamp() * 1000),
            adapters=_adapters(ready, t.number) if t.state.name == "COMPLETE" else {},
        )
        for t in ended
    ]
    settings = {k: v for k, v in ready.definition.items() if k not in ("settings", "inputs")}
    try:
        write_sweep_runs(
            resolve_store(ready.root, os.environ),
            name=ready.name,
            study=study.user_attrs.get(IDENTITY, ready.name),
            params=settings,
            trials=runs,
        )
    except UserError as e:
        log.warning("%s (The study is not affected; the same command again sends its trials.)", e)


def _tags(trial: FrozenTrial) -> dict[str, str]:
    feasible = trial.state.name == "COMPLETE" and all(v <= 0 for v in trial.constraints.values())
    reason = {"reason": trial.user_attrs[REASON]} if REASON in trial.user_attrs else {}
    return {"feasible": str(feasible).lower(), "state": trial.state.name.lower(), **reason}


def _adapters(ready: Sweep, number: int) -> dict[str, Path]:
    inside = Layout(ready.folder / f"trial-{number:05d}")
    folders = {model: inside.adapter(model, ready.variant) for model in ready.models}
    return {model: folder for model, folder in folders.items() if folder.exists()}


def _history(ready: Sweep, number: int) -> list[dict[str, float | int]]:
    """Training curves; of several models, each under its own name."""
    folders = _adapters(ready, number)
    if len(folders) == 1:
        return read_history(next(iter(folders.values())))
    return [
        {key if key == "step" else f"{model}/{key}": value for key, value in row.items()}
        for model, folder in folders.items()
        for row in read_history(folder)
    ]
