"""A sweep as a parent run, each of its trials as a child; twice is once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from detoxlens.tracking.address import Store
from detoxlens.tracking.failures import explained
from detoxlens.tracking.keys import flat_params
from detoxlens.tracking.runs import find_run, keep_one, log_metrics, log_params
from detoxlens.tracking.store import open_client


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """One trial that has ended.

    TrialRun(number=3, params={"lora.r": 8}, metrics={"toxicity/val/rate_gt_50": .05}, history=[{"step": 1, ...}], ...)
    """

    number: int
    params: Mapping[str, Any]
    """Its point."""
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float | int]]
    """Training curves; each row has a `step`."""
    tags: Mapping[str, str]
    """E.g. feasible, state, reason."""
    status: Literal["FINISHED", "KILLED", "FAILED"]
    """MLflow's word for: complete, ended early, could not be trained or interrupted."""
    start_ms: int
    end_ms: int
    adapters: Mapping[str, Path]
    """Model -> adapter folder."""


def write_sweep_runs(
    store: Store, *, name: str, study: str, params: Mapping[str, Any], trials: Sequence[TrialRun]
) -> str:
    """Writes the trials that the store does not have yet under the run of the sweep, and returns that run's id.

    Args:
        store: from `resolve_store`.
        name: the study's, for people.
        study: tells it from others of the same name.
        params: what is searched and wanted.
        trials: those that have ended.

    Raises:
        UserError: the store cannot be used.
    """
    client, experiment_id = open_client(store)
    with FileLock(store.state / "sweep-runs.lock"), explained(store):
        identity = {"detoxlens.kind": "sweep", "detoxlens.sweep": name, "detoxlens.study": study}
        parent = find_run(client, experiment_id, identity)
        if parent is None:
            above = {"mlflow.parentRunId": store.project_run_id} if store.project_run_id else {}
            start = min((t.start_ms for t in trials), default=None)
            parent = client.create_run(experiment_id, start_time=start, run_name=f"sweep/{name}", tags=identity | above)
            log_params(client, parent.info.run_id, flat_params(params))
            parent = keep_one(client, experiment_id, parent, identity)
        for trial in trials:
            mine = identity | {"detoxlens.kind": "trial", "detoxlens.trial": str(trial.number)}
            run = find_run(client, experiment_id, mine)
            if run is not None and run.info.end_time is not None:
                continue
            if run is None:
                tags = mine | {"mlflow.parentRunId": parent.info.run_id}
                run = client.create_run(
                    experiment_id, start_time=trial.start_ms, run_name=f"{name}/trial-{trial.number}", tags=tags
                )
            run_id = run.info.run_id
            for key, value in trial.tags.items():
                client.set_tag(run_id, f"detoxlens.{key}", value)
            log_params(client, run_id, flat_params(trial.params))
            rows = [(key, float(value), trial.end_ms, 0) for key, value in trial.metrics.items()]
            rows += [
                (key, float(value), trial.start_ms + int(row["step"]), int(row["step"]))
                for row in trial.history
                for key, value in row.items()
                if key != "step" and value is not None
            ]
            log_metrics(client, run_id, rows)
            for model, folder in trial.adapters.items():
                client.log_artifacts(run_id, str(folder), f"adapter/{model}")
            client.set_terminated(run_id, status=trial.status, end_time=trial.end_ms)
        client.set_terminated(parent.info.run_id, status="FINISHED")
    return parent.info.run_id
