"""One execution of one stage as a child of its (model, variant) run.

A record waits as a JSON file, `<state>/pending-runs/<store>/<id>.json`, written when the stage starts and again when it
ends, with a lock held in between: a record without an end whose lock is free belongs to a killed process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from detoxlens.common.errors import UserError
from detoxlens.common.machine import machine
from detoxlens.common.names import BASE
from detoxlens.tracking.address import Store
from detoxlens.tracking.failures import REFUSALS, explained
from detoxlens.tracking.keys import flat_params
from detoxlens.tracking.runs import find_run, is_missing, log_metrics, log_params, run_name, variant_run
from detoxlens.tracking.store import open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
SEND_AT_ONCE_SECONDS = 120.0
"""A stage that took longer sends its own record: MLflow's import no longer matters beside it."""
MACHINE = "detoxlens.machine"
"""Tag: the cores, memory and accelerator that a stage ran on."""
Metrics = Mapping[str, float | int]


@dataclasses.dataclass(kw_only=True)
class _Record:
    """One stage execution, as it waits on disk."""

    id: str
    stage: str
    model: str | None
    variant: str | None
    key: str | None
    """Tag of the parent run; None for a stage of no single (model, variant), such as `prepare`."""
    params: dict[str, str]
    project_run_id: str | None
    start_ms: int
    """Wall clock."""
    end_ms: int | None = None
    """Start plus what a steady clock measured: the wall clock may be set meanwhile."""
    status: str = "RUNNING"
    """RUNNING | FINISHED | FAILED | KILLED, MLflow's words."""
    error: str | None = None
    """Name of the exception's class; never its text, which may quote an address with a password."""
    metrics: list[tuple[str, float, int, int]] = dataclasses.field(default_factory=list)
    """name, value, time in ms, step"""
    machine: str | None = None
    """Where it ran; None in records of former versions."""


class StageRun:
    """What the wrapper of a stage logs to; made by `track_stage`."""

    def __init__(self, record: _Record):
        self._record = record

    def log_metrics(self, metrics: Metrics, *, step: int = 0) -> None:
        """Notes numbers at a step; kept in memory until the stage ends."""
        now = _now_ms()
        self._record.metrics += [(name, float(value), now, step) for name, value in metrics.items()]

    def log_history(self, rows: Iterable[Metrics]) -> None:
        """Notes training curves as `artifacts.read_history` gives them: each row has a `step`."""
        for row in rows:
            self.log_metrics({k: v for k, v in row.items() if k != "step" and v is not None}, step=int(row["step"]))


@contextlib.contextmanager
def track_stage(
    store: Store,
    *,
    stage: str,
    model: str | None = None,
    variant: str | None = None,
    key: str | None = None,
    params: Mapping[str, Any],
    send_after_seconds: float = SEND_AT_ONCE_SECONDS,
) -> Iterator[StageRun]:
    """Records the block as one execution of `stage`: start, end, status, params and what it logs.

    A store that fails never fails the stage: a warning is logged and the record waits for the next `send_pending`.

    Args:
        store: from `resolve_store`.
        stage: stage name without model and variant, e.g. `finetune`.
        model: model key, None for a stage that serves all.
        variant: variant key, None likewise.
        key: `run_key` of (model, variant), under whose run this one is filed; None files it on its own.
        params: the settings that this stage reads; nested mappings.
        send_after_seconds: a block that took longer is sent to the store when it ends, with all that waits; a shorter
            one waits.
    """
    record = _Record(
        id=uuid.uuid4().hex,
        stage=stage,
        model=model,
        variant=variant,
        key=key,
        params=flat_params(params),
        project_run_id=store.project_run_id,
        start_ms=_now_ms(),
    )
    path, started = store.pending / f"{record.start_ms}-{record.id}.json", time.monotonic()
    try:
        with _locked(path):
            _write(path, record)
            try:
                yield StageRun(record)
            except BaseException as e:
                stopped = isinstance(e, KeyboardInterrupt) or (isinstance(e, SystemExit) and e.code == 130)
                record.status, record.error = "KILLED" if stopped else "FAILED", type(e).__name__
                raise
            else:
                record.status = "FINISHED"
            finally:
                record.machine = machine()
                record.end_ms = record.start_ms + round(1000 * (time.monotonic() - started))
                _write(path, record)
    finally:
        long_enough = record.end_ms - record.start_ms >= 1000 * send_after_seconds
        if long_enough and record.status != "KILLED":  # who pressed Ctrl-C does not wait for an import
            send_or_warn(store)


def send_or_warn(store: Store) -> None:
    """`send_pending`; a store that cannot be used is a warning."""
    try:
        send_pending(store)
    except UserError as e:
        log.warning("%s (No result is affected; the records of stages are kept and sent later.)", e)


def send_pending(store: Store) -> int:
    """Sends every waiting record of an ended stage to the store and returns how many; killed ones are marked so.

    A record that MLflow refuses waits on, is named in a warning and holds up no other.

    Raises:
        UserError: the store cannot be used; what was not sent waits on.
    """
    _take_back(store)
    if not any(store.pending.glob("*.json")):
        return 0
    client, experiment_id = open_client(store)
    num_sent = 0
    with FileLock(store.pending / "send.lock"), FileLock(store.runs_lock), explained(store):
        for path in sorted(store.pending.glob("*.json")):
            lock = FileLock(path.with_suffix(".lock"), timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue  # still running
            try:
                if path.exists() and _sent(client, experiment_id, path):
                    num_sent += 1
                Path(lock.lock_file).unlink(missing_ok=True)
            finally:
                lock.release()
    return num_sent


def _take_back(store: Store) -> None:
    """Lets records wait again that former versions kept under the database's path, or set aside as `.rejected`."""
    for path in [*store.former_pending.glob("*.json"), *store.former_pending.glob("*.rejected")]:
        store.pending.mkdir(exist_ok=True)
        path.replace(store.pending / path.name)
    for path in store.pending.glob("*.rejected"):
        with contextlib.suppress(ValueError):
            json.loads(path.read_text(encoding="utf-8"))
            path.replace(path.with_suffix(".json"))


def _sent(client: MlflowClient, experiment_id: str, path: Path) -> bool:
    """Sends a record and deletes it; False where it waits on, or is no record at all and is set aside."""
    from mlflow.exceptions import MlflowException

    try:
        record = _Record(**json.loads(path.read_text(encoding="utf-8")))
    except ValueError as e:
        log.warning("%s holds no record of a stage (%s); kept as .unreadable", path, e)
        path.replace(path.with_suffix(".unreadable"))
        return False
    except TypeError as e:
        log.warning("%s was written by another version of detoxlens (%s); it waits for that version", path, e)
        return False
    try:
        _send(client, experiment_id, record)
    except MlflowException as e:
        if e.error_code not in REFUSALS and not is_missing(e):
            raise
        log.warning("MLflow refuses the record %s (%s); it waits, and is tried again with the next", path, e.message)
        return False
    path.unlink()
    return True


def _send(client: MlflowClient, experiment_id: str, record: _Record) -> None:
    """Writes one record as a run, its parent first. A record that was sent halfway is completed, not doubled."""
    identity = {"detoxlens.record": record.id}
    run = find_run(client, experiment_id, identity)
    if run is None:
        tags = identity | {"detoxlens.kind": "stage", "detoxlens.stage": record.stage}
        variant = record.variant or (BASE if record.key is not None else None)  # None: of former versions
        own = {"model": record.model, "variant": variant, "error": record.error}
        tags |= {f"detoxlens.{name}": value for name, value in own.items() if value is not None}
        if record.machine is not None:
            tags[MACHINE] = record.machine
        if record.project_run_id is not None:
            tags["detoxlens.project_run"] = record.project_run_id
            tags["mlflow.parentRunId"] = record.project_run_id
        if record.key is not None:
            parent = variant_run(
                client,
                experiment_id,
                model=record.model,
                variant=variant,
                key=record.key,
                project_run_id=record.project_run_id,
                start_ms=record.start_ms,
            )
            tags["mlflow.parentRunId"] = parent.info.run_id
        run = client.create_run(experiment_id, start_time=record.start_ms, tags=tags, run_name=_name(record, variant))
    run_id = run.info.run_id
    log_params(client, run_id, record.params)
    metrics = list(record.metrics)
    if record.end_ms is not None:
        metrics.append(("stage/wall_seconds", (record.end_ms - record.start_ms) / 1000, record.end_ms, 0))
    log_metrics(client, run_id, metrics)
    status = "KILLED" if record.status == "RUNNING" else record.status
    client.set_terminated(run_id, status=status, end_time=record.end_ms or record.start_ms)


def _name(record: _Record, variant: str | None) -> str:
    """`finetune/tiny-neox/ft`, `score/tiny-neox/base`, `base/tiny-neox`, `prepare`."""
    if record.model is None:
        return record.stage
    return f"{record.stage}/{record.model if record.stage == 'base' else run_name(record.model, variant)}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Marks the record at `path` as running. A disk that takes no lock does not stop the stage."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        except OSError as e:
            log.warning("This stage is not recorded in MLflow: %s", e)
        yield


def _write(path: Path, record: _Record) -> None:
    """Writes the record, or warns: a disk that cannot take it must not hide how the stage itself ended."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(dataclasses.asdict(record)), encoding="utf-8")
        partial.replace(path)
    except OSError as e:
        log.warning("The record of this stage could not be written: %s", e)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
