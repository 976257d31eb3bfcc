"""Finding, opening and filling runs; what stage runs and comparable runs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from detoxlens.common.names import shown_name
from detoxlens.tracking.names import mlflow_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.exceptions import MlflowException

MAX_METRICS, MAX_PARAMS = 1000, 100
"""MLflow's limits for one call."""


def search(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    """All live runs that the query finds, oldest first, however many pages they fill."""
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def having(tags: Mapping[str, str]) -> str:
    """The query for runs that carry all the tags."""
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def is_missing(error: MlflowException) -> bool:
    """Whether MLflow says that what was asked for does not exist."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Run | None:
    """The oldest live run that carries all the tags, or None."""
    found = client.search_runs([experiment_id], having(tags), max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def keep_one(client: MlflowClient, experiment_id: str, run: Run, tags: Mapping[str, str]) -> Run:
    """The oldest live run that carries the tags, after `run` was made or filled; what was made beside it goes.

    A lock ends with its machine, and MLflow has no "make it unless it is there": clients on two machines may both look,
    find nothing and make one. So each looks again. A younger run is taken away by whoever made it, or, when it is
    finished, by anyone; one that is still being written is left to its writer. Its children move to the oldest.
    """
    found = search(client, experiment_id, having(tags))
    for other in found[1:]:
        if other.info.run_id == run.info.run_id or other.info.status == "FINISHED":
            move_children(client, experiment_id, other.info.run_id, found[0].info.run_id)
            client.delete_run(other.info.run_id)
    return found[0]


def move_children(client: MlflowClient, experiment_id: str, old: str, new: str) -> None:
    """Files the runs below `old` under `new`."""
    for child in search(client, experiment_id, having({"mlflow.parentRunId": old})):
        client.set_tag(child.info.run_id, "mlflow.parentRunId", new)


def variant_run(
    client: MlflowClient,
    experiment_id: str,
    *,
    model: str,
    variant: str,
    key: str,
    project_run_id: str | None,
    start_ms: int | None = None,
) -> Run:
    """The run of (model, variant) that carries `key`, opened (with this start) if there is none; `report` fills it."""
    identity = variant_tags(key)
    found = find_run(client, experiment_id, identity)
    if found is not None:
        return found
    tags = identity | {"detoxlens.model": model, "detoxlens.variant": variant}
    if project_run_id is not None:
        tags["mlflow.parentRunId"] = project_run_id
    run = client.create_run(experiment_id, start_time=start_ms, run_name=run_name(model, variant), tags=tags)
    client.update_run(run.info.run_id, status="SCHEDULED")  # until `report` has filled it
    return keep_one(client, experiment_id, run, identity)


def run_name(model: str, variant: str) -> str:
    """What people read: `tiny-neox/base` for the base model, whose key is `it`."""
    return f"{model}/{shown_name(variant)}"


def variant_tags(key: str) -> dict[str, str]:
    """The tags by which the run of a (model, variant) is found."""
    return {"detoxlens.key": key, "detoxlens.kind": "variant"}


def log_metrics(client: MlflowClient, run_id: str, metrics: Iterable[tuple[str, float, int, int]]) -> None:
    """Logs (name, value, time in ms, step) rows, as few calls as MLflow allows."""
    from mlflow.entities import Metric

    rows = [Metric(mlflow_name(name), *rest) for name, *rest in metrics]
    for start in range(0, len(rows), MAX_METRICS):
        client.log_batch(run_id, metrics=rows[start : start + MAX_METRICS])


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Logs params, as few calls as MLflow allows."""
    from mlflow.entities import Param

    rows = [Param(mlflow_name(name), value) for name, value in params.items()]
    for start in range(0, len(rows), MAX_PARAMS):
        client.log_batch(run_id, params=rows[start : start + MAX_PARAMS])
