"""Training curves for TensorBoard and Weights & Biases, beside MLflow, which stays the record.

A finished training is written once, as a whole: what is there of the same adapter is replaced. No result depends on it,
so that whatever fails is a warning.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from detoxlens.common.artifacts import Layout
from detoxlens.common.repository import main_repository

log = logging.getLogger(__name__)
Rows = Iterable[Mapping[str, float | int | None]]
PROJECT = "detoxlens"


def report_history(reporters: Iterable[str], root: Path, name: str, rows: Rows) -> None:
    """Sends the curves of one training to each of `reporters`; `mlflow` has them already.

    Args:
        reporters: params `tracking.report_to`.
        root: repository root.
        name: of the run, e.g. `tiny-neox/ft`.
        rows: as `artifacts.read_history` gives them: each has a `step`.
    """
    rows = list(rows)
    for reporter in reporters:
        if reporter not in REPORTERS:
            continue
        package, send = REPORTERS[reporter]
        try:
            importlib.import_module(package)
        except ImportError:
            log.warning(
                "tracking.report_to names %s, and the package %s is not installed: `pip install %s` brings it; the "
                "curves of %s are in MLflow and in the adapter's history.jsonl.", reporter, package, package, name
            )  # fmt: skip
            continue
        try:
            send(Layout(main_repository(root)).state, name, rows)
        except Exception as e:  # a service, its login, its client: each with errors of its own
            log.warning("The curves of %s were not sent to %s (%s); no result is affected.", name, reporter, e)


def _tensorboard(state: Path, name: str, rows: Rows) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = state / "tensorboard" / name
    shutil.rmtree(folder, ignore_errors=True)
    writer = EventFileWriter(str(folder))
    try:
        for step, numbers in _numbers(rows):
            values = [Summary.Value(tag=key, simple_value=value) for key, value in numbers.items()]
            writer.add_event(Event(step=step, summary=Summary(value=values)))
    finally:
        writer.close()


def _wandb(state: Path, name: str, rows: Rows) -> None:
    import wandb

    run_id = name.replace("/", "-")
    with wandb.init(project=PROJECT, name=name, id=run_id, resume="allow", dir=str(state), reinit="create_new") as run:
        for step, numbers in _numbers(rows):
            run.log(numbers, step=step)


def _numbers(rows: Rows) -> Iterable[tuple[int, dict[str, float]]]:
    """Step, and the numbers of it."""
    for row in rows:
        yield int(row["step"]), {k: float(v) for k, v in row.items() if k != "step" and v is not None}


REPORTERS: Mapping[str, tuple[str, Callable[[Path, str, Rows], None]]] = MappingProxyType(
    {"tensorboard": ("tensorboard", _tensorboard), "wandb": ("wandb", _wandb)}
)
"""Name in params -> the package that it needs, and what sends curves to it."""
