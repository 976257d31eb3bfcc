"""The run that `mlflow run` opens around `detoxlens repro`: parent of what it started, or a no-op that says so."""

from __future__ import annotations

from collections.abc import Sequence

from detoxlens.tracking.runs import find_run
from detoxlens.tracking.stages import send_pending
from detoxlens.tracking.store import Store, open_client, told


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
    client, experiment_id = open_client(store)
    with told(store):
        ran = find_run(client, experiment_id, {"detoxlens.project_run": store.project_run_id}) is not None
        runs = [find_run(client, experiment_id, {"detoxlens.key": k, "detoxlens.kind": "variant"}) for k in keys]
        found = [run for run in runs if run is not None]
        links = [f"- [{r.info.run_name}](#/experiments/{experiment_id}/runs/{r.info.run_id})" for r in found]
        head = "Results:" if ran else "Nothing had changed: no stage ran. The results are those of:"
        client.set_tag(store.project_run_id, "detoxlens.kind", "project")
        client.set_tag(store.project_run_id, "detoxlens.noop", "false" if ran else "true")
        client.set_tag(store.project_run_id, "detoxlens.runs", ",".join(r.info.run_id for r in found))
        client.set_tag(store.project_run_id, "mlflow.note.content", "\n".join([head, *links]))
