"""When, where and for how long the stages behind comparable runs ran; and the report's dated page as their artifact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from detoxlens.tracking.address import Store
from detoxlens.tracking.failures import explained
from detoxlens.tracking.runs import having, search
from detoxlens.tracking.stages import MACHINE
from detoxlens.tracking.store import open_client

PAGE = "detoxlens.page"
"""Tag of a run that has the dated page: md5 of the page that it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One finished execution of a stage.

    Execution(name="finetune/tiny-neox/ft", start_ms=1764557400000, end_ms=1764557424000, machine="2 cores, 8 GiB")
    """

    name: str
    start_ms: int
    """Wall clock, since 1970."""
    end_ms: int
    machine: str | None
    """None in records of former versions."""


def executions(store: Store, run_ids: Iterable[str]) -> list[Execution]:
    """The last finished execution of each stage, by start: those filed under the runs, and those that serve all.

    A stage that DVC restored from its cache did not run: its execution may be in another store, and is then missing.

    Args:
        store: from `resolve_store`.
        run_ids: of comparable runs.

    Raises:
        UserError: the store cannot be used.
    """
    client, experiment_id = open_client(store)
    stage = {"detoxlens.kind": "stage"}
    with explained(store):
        found = [run for id in run_ids for run in search(client, experiment_id, having({"mlflow.parentRunId": id}))]
        found += [r for r in search(client, experiment_id, having(stage)) if "detoxlens.model" not in r.data.tags]
    last = {
        run.info.run_name: Execution(
            name=run.info.run_name,
            start_ms=run.info.start_time,
            end_ms=run.info.end_time,
            machine=run.data.tags.get(MACHINE),
        )
        for run in sorted(found, key=lambda run: run.info.start_time)
        if run.info.status == "FINISHED" and run.data.tags.get("detoxlens.kind") == "stage"
    }
    return sorted(last.values(), key=lambda one: one.start_ms)


def log_page(store: Store, run_ids: Iterable[str], page: Path, *, md5: str) -> None:
    """Puts the page among the artifacts of the runs that do not have that of `md5` yet.

    Args:
        store: from `resolve_store`.
        run_ids: of comparable runs.
        page: file to copy.
        md5: of the undated page that it is of.

    Raises:
        UserError: the store cannot be used.
    """
    client, _ = open_client(store)
    with explained(store):
        for run_id in run_ids:
            if client.get_run(run_id).data.tags.get(PAGE) != md5:
                client.log_artifact(run_id, str(page))
                client.set_tag(run_id, PAGE, md5)
