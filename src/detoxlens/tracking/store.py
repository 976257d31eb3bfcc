"""The store of runs: made where it is missing, opened, and served."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from filelock import FileLock

from detoxlens.common.errors import UserError
from detoxlens.tracking.address import Store
from detoxlens.tracking.failures import explained
from detoxlens.tracking.location import follow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

EXPERIMENT = "detoxlens"
"""The experiment of every run, so that any two can be compared."""


def prepare_store(store: Store) -> None:
    """Makes the local store and the experiment if they do not exist, safely while other processes do the same.

    The schema migration of a fresh SQLite store takes seconds and breaks when two processes run it at once. Also links
    `mlflow.db` in the repository's root to it, where plain `mlflow ui` and `mlflow run .` look.

    Raises:
        UserError: the database is damaged, of another MLflow version, or cannot be reached.
    """
    if store.database is None:
        return
    _quiet_mlflow()
    store.state.mkdir(parents=True, exist_ok=True)
    store.database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.state / "mlflow.lock"), explained(store):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if not store.database.exists():  # made aside, so that a kill amid the migration leaves no half a schema
            fresh = store.database.with_name(f".{store.database.name}.new")
            fresh.unlink(missing_ok=True)
            SqlAlchemyStore(f"sqlite:///{fresh}", store.artifact_root.as_uri()).engine.dispose()
            fresh.replace(store.database)
        opened = SqlAlchemyStore(store.uri, store.artifact_root.as_uri())  # raises if the schema is not this MLflow's
        follow(store, EXPERIMENT)
        if opened.get_experiment_by_name(EXPERIMENT) is None:
            location = (store.artifact_root / EXPERIMENT).as_uri()
            opened.create_experiment(EXPERIMENT, artifact_location=location)
        link = store.state.parent / "mlflow.db"
        if store.database == store.state / "mlflow.db" and not os.path.lexists(link):
            link.symlink_to(store.database.relative_to(link.parent))


def open_client(store: Store) -> tuple[MlflowClient, str]:
    """A client of the prepared store, and the experiment's id.

    Raises:
        UserError: the store cannot be used, or the experiment is in MLflow's bin.
    """
    prepare_store(store)
    with explained(store):
        from mlflow.exceptions import MlflowException

        client = read_client(store)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                return client, client.create_experiment(EXPERIMENT)
            except MlflowException:  # another client of the server was faster
                experiment = client.get_experiment_by_name(EXPERIMENT)
                if experiment is None:
                    raise
    check_not_deleted(store, experiment)
    return client, experiment.experiment_id


def check_not_deleted(store: Store, experiment: Experiment) -> None:
    """Raises UserError if the experiment is in MLflow's bin."""
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"The experiment {EXPERIMENT!r} of the tracking store {store.shown_uri} is in MLflow's bin, and takes no "
            f"run. Bring it back with all its runs: `MLFLOW_TRACKING_URI={store.shown_uri} mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}`. Records of stages wait until then."
        )


def read_client(store: Store) -> MlflowClient:
    """A client that makes and changes nothing by itself; the store must be there."""
    _quiet_mlflow()
    with explained(store):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=store.uri)


def ui_command(store: Store, *, host: str = "127.0.0.1", port: int = 5000, workers: int = 1) -> list[str]:
    """The command that serves MLflow's pages on a store, for an environment with `ui_environment` in it."""
    command = [sys.executable, "-m", "mlflow", "ui"]
    if store.artifact_root is not None:
        command += ["--default-artifact-root", store.artifact_root.as_uri()]
    return [*command, "--workers", str(workers), "--host", host, "--port", str(port)]


def ui_environment(store: Store) -> dict[str, str]:
    """Which store `ui_command` serves: not an argument, which every user of the machine could read with its password.

    Besides: no telemetry, and none of the seven processes that wait for jobs we never give.
    """
    return {
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def charts_url(store: Store, *, host: str = "127.0.0.1", port: int = 5000) -> str:
    """The page that overlays the runs, of `ui_command` or of the store's own server; MLflow's front page does not."""
    _, experiment_id = open_client(store)
    server = store.shown_uri.rstrip("/") if store.is_server else f"http://{host}:{port}"
    return f"{server}/#/experiments/{experiment_id}/runs?compareRunsMode=CHART"


def _quiet_mlflow() -> None:
    """Set before MLflow's import: no telemetry, no word about git, no migration log, no minutes of retries."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines per run on a server
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.utils.git_utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
