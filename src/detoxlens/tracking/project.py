"""The run that `mlflow run` opens around `detoxlens repro`: parent of what it started, or a no-op that says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detoxlens.tracking.address import Store
from detoxlens.tracking.failures import REFUSALS, explained
from detoxlens.tracking.runs import find_run, is_missing
from detoxlens.tracking.stages import send_pending
from detoxlens.tracking.store import open_client

log = logging.getLogger(__name__)


def finish_project_run(store: Store, keys: Sequence[str]) -> None:
    """Links the project run to the comparable runs with these keys, and tags it `detoxlens.noop` if no stage ran.

    Does nothing outside `mlflow run`.

    Args:
        store: from `resolve_store`.
        keys: `run_key` of every (model, variant) that the pipeline covers.

    Raises:
        UserError: the store cannot be used.
    """
    send_pending(store)
    if store.project_run_id is None:
        return
    from mlflow.exceptions import MlflowException

    client, experiment_id = open_client(store)
    with explained(store):
        ran = find_run(client, experiment_id, {"detoxlens.project_run": store.project_run_id}) is not None
        runs = [find_run(client, experiment_id, {"detoxlens.key": k, "detoxlens.kind": "variant"}) for k in keys]
        found = [run for run in runs if run is not None]
        links = [f"- [{r.info.run_name}](#/experiments/{experiment_id}/runs/{r.info.run_id})" for r in found]
        head = "Results:" if ran else "Nothing had changed: no stage ran. The results are those of:"
        tags = {
            "detoxlens.kind": "project",
            "detoxlens.noop": "false" if ran else "true",
            "detoxlens.runs": ",".join(r.info.run_id for r in found),
            "mlflow.note.content": "\n".join([head, *links]),
        }
        try:
            for name, value in tags.items():
                client.set_tag(store.project_run_id, name, value)
        except MlflowException as e:
            if not is_missing(e) and e.error_code not in REFUSALS:  # deleted for good, or in the bin
                raise
            log.warning(
                "The run %s of `mlflow run` was deleted meanwhile; its results are in the store.", store.project_run_id
            )
