"""One (model, variant) as one run to compare, written from the report's tables; twice is once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from detoxlens.tracking.address import Store
from detoxlens.tracking.curves import Curve
from detoxlens.tracking.failures import explained
from detoxlens.tracking.keys import dvc_md5, flat_metrics, flat_params
from detoxlens.tracking.names import changed_names, mlflow_name
from detoxlens.tracking.runs import (
    keep_one,
    log_metrics,
    log_params,
    move_children,
    run_name,
    variant_run,
    variant_tags,
)
from detoxlens.tracking.stages import send_pending
from detoxlens.tracking.store import open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CONTENT = "detoxlens.content"
TABLE, NAMES, FIGURES, ADAPTER = "completions.json", "names.json", "figures", "adapter"
"""Artifacts of a run; `NAMES` says what a name stood for where MLflow could not take it as it was."""
PARTIAL = "detoxlens.partial"
"""Tag of a run without completions, written from what git holds."""
OUTPUT = "dvc/"
"""Tag `dvc/<path>` = md5: the outputs of dvc.lock that a run is about, by which either leads to the other."""


@dataclass(frozen=True, kw_only=True)
class DatasetInput:
    """Data that a run has read.

    DatasetInput(name="prompts", path=Path("data/prepared/prompts.parquet"), context="evaluation")
    """

    name: str
    path: Path
    """File or folder; its DVC md5 is the digest."""
    context: str
    """training | validation | evaluation"""


def write_comparable_run(
    store: Store,
    *,
    model: str,
    variant: str,
    key: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
    curves: Sequence[Curve],
    figures: Sequence[Path],
    completions: Mapping[str, Sequence[str | int | float | bool | None]] | None,
    adapter: Path | None,
    datasets: Sequence[DatasetInput],
    outputs: Mapping[str, str],
    color: str,
    root: Path,
    description: str = "",
    made_by: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Writes the run that carries `key` and returns its id. The same content again changes nothing.

    Other content under the same key (the code changed, say) replaces the run: MLflow cannot take a metric back. The old
    one goes to MLflow's bin and its stage runs move to the new one.

    Args:
        store: from `resolve_store`; what waits there is sent first.
        model: model key.
        variant: variant key.
        key: from `run_key`.
        params: from `comparable_params`.
        metrics: this (model, variant) of reports/metrics.json.
        curves: from `read_curves`.
        figures: files for the folder `figures`.
        completions: columns of the completions table, all of one length; shown as plain text. None where they are not
            on this machine (a fresh clone): such a run never replaces one that has them, and is replaced by it.
        adapter: adapter folder, or None.
        datasets: what was read; the digest is DVC's md5.
        outputs: path in the repository -> DVC's md5 of every output that this run is about; see `OUTPUT`.
        color: the variant's colour in the report's figures, `#rrggbb`; MLflow's own choice may repeat within a chart.
        root: the project's root, to which sources are given.
        description: Markdown that the run's page begins with; a later one replaces it.
        made_by: tags that say what made the result (`git.commit`, `dvc.exp`, ...), written with the run and kept.

    Raises:
        UserError: the store cannot be used.
    """
    send_pending(store)
    client, experiment_id = open_client(store)
    files = {f"figures/{p.name}": dvc_md5(p) for p in figures}
    if adapter is not None:
        files[ADAPTER] = dvc_md5(adapter)
    inputs = [(d.name, dvc_md5(d.path), _source(d.path, root), d.context) for d in datasets]
    content = {
        "params": flat_params(params),
        "metrics": flat_metrics(metrics),
        "curves": [asdict(c) for c in curves],
        "files": files,
        "completions": completions and {name: list(column) for name, column in completions.items()},
        "inputs": inputs,
        "color": color,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    with explained(store), FileLock(store.runs_lock):
        run = variant_run(
            client, experiment_id, model=model, variant=variant, key=key, project_run_id=store.project_run_id
        )
        before = run.data.tags.get(CONTENT)
        if before is not None and completions is None and PARTIAL not in run.data.tags:
            return run.info.run_id
        if before == digest:
            _describe(client, run, model=model, variant=variant, description=description, tags={})
            _tag_outputs(client, run, outputs)
            if _lacks_artifacts(
                client, run.info.run_id, content, figures, adapter
            ):  # deleted, or left behind by a move
                _log_artifacts(client, run.info.run_id, content, figures, adapter)
            return run.info.run_id
        if before is not None and before.removeprefix("writing ") != digest:
            run = _replace(client, experiment_id, run, model=model, variant=variant, key=key)
        run_id = run.info.run_id
        client.set_tag(run_id, CONTENT, f"writing {digest}")
        if completions is None:
            client.set_tag(run_id, PARTIAL, "true")
        client.set_tag(run_id, "mlflow.runColor", color)
        log_params(client, run_id, content["params"])
        # The times are the same on a second try, which MLflow then takes for the same points; and a second apart from
        # step to step, since MLflow's metric page opens on relative time.
        at = run.info.start_time
        points = [(name, value, at, 0) for name, value in content["metrics"].items()]
        points += [(curve.name, value, at + 1000 * step, step) for curve in curves for step, value in curve.points]
        log_metrics(client, run_id, points)
        _log_inputs(client, run_id, inputs)
        _log_artifacts(client, run_id, content, figures, adapter)
        _describe(client, run, model=model, variant=variant, description=description, tags=made_by)
        _tag_outputs(client, run, outputs)
        client.set_terminated(run_id, status="FINISHED")
        client.set_tag(run_id, CONTENT, digest)
        return keep_one(client, experiment_id, run, variant_tags(key)).info.run_id


def _replace(client: MlflowClient, experiment_id: str, old: Run, *, model: str, variant: str, key: str) -> Run:
    """A fresh run in place of `old`, with its children and its parent."""
    parent = old.data.tags.get("mlflow.parentRunId")
    client.delete_run(old.info.run_id)
    new = variant_run(client, experiment_id, model=model, variant=variant, key=key, project_run_id=parent)
    move_children(client, experiment_id, old.info.run_id, new.info.run_id)
    return new


def _log_artifacts(
    client: MlflowClient, run_id: str, content: Mapping[str, Any], figures: Sequence[Path], adapter: Path | None
) -> None:
    for figure in figures:
        client.log_artifact(run_id, str(figure), FIGURES)
    if adapter is not None:
        client.log_artifacts(run_id, str(adapter), ADAPTER)
    if changed := changed_names([*content["metrics"], *content["params"], *(c["name"] for c in content["curves"])]):
        client.log_text(run_id, json.dumps(changed, indent=2, ensure_ascii=False), NAMES)
    if content["completions"] is not None:
        _log_table(client, run_id, content["completions"])


def _lacks_artifacts(
    client: MlflowClient, run_id: str, content: Mapping[str, Any], figures: Sequence[Path], adapter: Path | None
) -> bool:
    """Whether a folder or table that the run once had is not where MLflow looks for it."""
    has = {TABLE: content["completions"] is not None, FIGURES: bool(figures), ADAPTER: adapter is not None}
    wanted = {name for name, is_there in has.items() if is_there}
    return not wanted <= {artifact.path for artifact in client.list_artifacts(run_id)}


def _describe(
    client: MlflowClient, run: Run, *, model: str, variant: str, description: str, tags: Mapping[str, str]
) -> None:
    """Gives the run its name, its description and `tags`; a name that a person gave it stays."""
    run_id, name = run.info.run_id, run_name(model, variant)
    if run.info.run_name in (f"{model}/None", f"{model}/{variant}") and run.info.run_name != name:  # of former versions
        client.update_run(run_id, name=name)
    wanted = {"detoxlens.variant": variant, **tags} | ({"mlflow.note.content": description} if description else {})
    for key, value in wanted.items():
        if run.data.tags.get(key) != value:
            client.set_tag(run_id, mlflow_name(key), value)


def _tag_outputs(client: MlflowClient, run: Run, outputs: Mapping[str, str]) -> None:
    """Makes the run's `dvc/` tags these and no others."""
    from mlflow.entities import RunTag

    before = {name: value for name, value in run.data.tags.items() if name.startswith(OUTPUT)}
    now = {mlflow_name(f"{OUTPUT}{path}"): md5 for path, md5 in outputs.items()}
    for name in before.keys() - now.keys():
        client.delete_tag(run.info.run_id, name)
    if changed := [RunTag(name, md5) for name, md5 in now.items() if before.get(name) != md5]:
        client.log_batch(run.info.run_id, tags=changed)


def _log_inputs(client: MlflowClient, run_id: str, inputs: Sequence[tuple[str, str, str, str]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    client.log_inputs(
        run_id,
        [
            DatasetInput(
                dataset=Dataset(name=name, digest=md5, source_type="dvc", source=json.dumps({"path": source})),
                tags=[InputTag("mlflow.data.context", context)],
            )
            for name, md5, source, context in inputs
        ],
    )


def _log_table(client: MlflowClient, run_id: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """A table as MLflow's pages show it (what `mlflow.log_table` writes, without pandas)."""
    table = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    client.log_text(run_id, json.dumps(table), TABLE)
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": TABLE, "type": "table"}]))


def _source(path: Path, root: Path) -> str:
    """The path as it reads in the repository; nothing of this machine is logged."""
    resolved, root = path.resolve(), root.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.name
