"""MLflow, and the only place that imports it.

    address.py     which store: the project's own, or another
    store.py       its set-up under a lock, the client, MLflow's pages
    location.py    artifact folders follow a project that is moved or copied
    failures.py    errors of a store, with the remedy
    keys.py        keys of comparable runs; flat names for params and metrics
    names.py       those names as MLflow takes them, and back
    curves.py      the report's curve tables as metrics along steps
    runs.py        finding, opening and filling runs
    reporters.py   training curves for TensorBoard and W&B too
    stages.py      one execution of one stage -> one child run
    comparable.py  one (model, variant) -> one run to compare, written from the report's tables
    executions.py  when and where the stages behind a run ran; the report's dated page among its artifacts
    registry.py    adapters in the model registry, and which of them is the champion
    inventory.py   what a store holds, for the doctor
    sweeps.py      one sweep -> a parent run, its trials -> children
    ui.py          the pages, and guard.py: served for as long as their command runs
    project.py     the run that `mlflow run` opened, if any

A stage costs no MLflow import (1.3 to 2.5 s here): its record waits in the state folder and is sent by the next process
that has the import paid for anyway, or at once when the stage was long. So an unreachable server loses nothing.
"""

from detoxlens.tracking.address import Store, resolve_store
from detoxlens.tracking.comparable import DatasetInput, write_comparable_run
from detoxlens.tracking.curves import Curve, read_curves
from detoxlens.tracking.executions import Execution, executions, log_page
from detoxlens.tracking.failures import Refused
from detoxlens.tracking.inventory import StoredRun, StoredVersion, stored_runs, stored_versions
from detoxlens.tracking.keys import comparable_params, dvc_md5, flat_metrics, flat_params, run_key
from detoxlens.tracking.location import former_root
from detoxlens.tracking.names import mlflow_name, original_name
from detoxlens.tracking.project import finish_project_run
from detoxlens.tracking.registry import CHAMPION, AdapterVersion, download, model_of, register_adapters, registered_name
from detoxlens.tracking.reporters import report_history
from detoxlens.tracking.runs import run_name
from detoxlens.tracking.stages import StageRun, send_or_warn, send_pending, track_stage
from detoxlens.tracking.store import (
    EXPERIMENT,
    charts_url,
    prepare_store,
    ui_command,
    ui_environment,
)
from detoxlens.tracking.sweeps import TrialRun, write_sweep_runs

__all__ = [
    "CHAMPION",
    "EXPERIMENT",
    "AdapterVersion",
    "Curve",
    "DatasetInput",
    "Execution",
    "Refused",
    "StageRun",
    "Store",
    "StoredRun",
    "StoredVersion",
    "TrialRun",
    "charts_url",
    "comparable_params",
    "download",
    "dvc_md5",
    "executions",
    "finish_project_run",
    "flat_metrics",
    "flat_params",
    "former_root",
    "log_page",
    "mlflow_name",
    "model_of",
    "original_name",
    "prepare_store",
    "read_curves",
    "register_adapters",
    "registered_name",
    "report_history",
    "resolve_store",
    "run_key",
    "run_name",
    "send_or_warn",
    "send_pending",
    "stored_runs",
    "stored_versions",
    "track_stage",
    "ui_command",
    "ui_environment",
    "write_comparable_run",
    "write_sweep_runs",
]
