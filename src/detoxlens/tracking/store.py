"""Where runs are recorded: one SQLite file of the main repository, or wherever MLFLOW_TRACKING_URI points."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from filelock import FileLock

from detoxlens.common.errors import UserError
from detoxlens.common.urls import without_password, without_password_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "detoxlens"
"""The experiment of every run, so that any two can be compared."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A tracking store; made by `resolve_store`.

    Store(uri="sqlite:////home/ada/detoxlens/.detoxlens/mlflow.db", state=Path("/home/ada/detoxlens/.detoxlens"),
          project_run_id=None)
    """

    uri: str
    """MLflow tracking URI."""
    state: Path
    """State folder of the main repository: locks, pending records, artifacts of a local store."""
    project_run_id: str | None = None
    """The run that `mlflow run` opened around this process."""

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for a server or another database."""
        return Path(unquote(self.uri.removeprefix("sqlite:///"))) if self.uri.startswith("sqlite:///") else None

    @property
    def artifact_root(self) -> Path | None:
        """Where a local store keeps artifacts; a server decides itself."""
        if self.database is None:
            return None
        is_own = self.database.resolve() == (self.state / "mlflow.db").resolve()
        return self.state / "mlartifacts" if is_own else self.database.absolute().parent / "mlartifacts"

    @property
    def pending(self) -> Path:
        """Folder of the stage records that have not been sent yet; one per store."""
        database = self.database
        name = str(database.resolve()) if database is not None else self.uri
        return self.state / "pending-runs" / hashlib.sha256(name.encode()).hexdigest()[:16]

    @property
    def runs_lock(self) -> Path:
        """Held while a run is looked for and, if there is none, made: two processes must not make it twice."""
        return self.state / "runs.lock"

    @property
    def is_server(self) -> bool:
        """An MLflow server, rather than a database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown_uri(self) -> str:
        """The URI without user name and password, for messages."""
        return without_password(self.uri)


def resolve_store(root: Path, environ: Mapping[str, str]) -> Store:
    """The store of the repository that `root` belongs to.

    Args:
        root: the project's root; may be a temporary copy made by `dvc exp run --temp`, or a git worktree.
        environ: `os.environ`. MLFLOW_TRACKING_URI wins when set; MLFLOW_RUN_ID is what `mlflow run` exports. Nothing
            else is read, and nothing from it is ever logged.

    Raises:
        UserError: MLFLOW_TRACKING_URI names MLflow's retired folder store.
    """
    state = main_repository(root) / ".detoxlens"
    uri = environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state / 'mlflow.db'}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"MLFLOW_TRACKING_URI={uri} names a folder, and MLflow no longer keeps runs in folders. Unset it to use "
            f"{state / 'mlflow.db'}, or give a database or server: sqlite:////path/mlflow.db, postgresql://..., http://..."
        )
    return Store(uri=uri, state=state, project_run_id=environ.get("MLFLOW_RUN_ID") or None)


def main_repository(root: Path) -> Path:
    """The checkout that outlives `root`: DVC's temporary copies and git's linked worktrees lead back to it."""
    root = root.resolve()
    for parent in root.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return main_repository(parent.parents[2])
    link = root / ".git"
    if link.is_file():  # a worktree: "gitdir: <main>/.git/worktrees/<name>"
        git_dir = root / link.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        common = git_dir / "commondir"
        if common.exists():
            shared = (git_dir / common.read_text(encoding="utf-8").strip()).resolve()
            if shared.name == ".git":
                return shared.parent
    return root


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
    with FileLock(store.state / "mlflow.lock"), told(store):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if not store.database.exists():  # made aside, so that a kill amid the migration leaves no half a schema
            fresh = store.database.with_name(f".{store.database.name}.new")
            fresh.unlink(missing_ok=True)
            SqlAlchemyStore(f"sqlite:///{fresh}", store.artifact_root.as_uri()).engine.dispose()
            fresh.replace(store.database)
        opened = SqlAlchemyStore(store.uri, store.artifact_root.as_uri())  # raises if the schema is not this MLflow's
        if opened.get_experiment_by_name(EXPERIMENT) is None:
            location = (store.artifact_root / EXPERIMENT).as_uri()
            opened.create_experiment(EXPERIMENT, artifact_location=location)
        link = store.state.parent / "mlflow.db"
        if store.database == store.state / "mlflow.db" and not os.path.lexists(link):
            link.symlink_to(store.database.relative_to(link.parent))


def open_client(store: Store) -> tuple[MlflowClient, str]:
    """A client of the prepared store, and the experiment's id."""
    prepare_store(store)
    _quiet_mlflow()
    with told(store):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(tracking_uri=store.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, experiment.experiment_id
        try:
            return client, client.create_experiment(EXPERIMENT)
        except MlflowException:  # another client of the server was faster
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
            return client, experiment.experiment_id


@contextlib.contextmanager
def told(store: Store) -> Iterator[None]:
    """Turns a failing store into one paragraph."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as e:
        cause = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        cause = without_password_of(store.uri, cause)
        out_of_date = "out-of-date" in cause or "Can't locate revision" in str(e)
        way_out = (
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            if "error code 401" in cause
            else f"Run `mlflow db upgrade {store.shown_uri}` after a backup."
            if out_of_date
            else f"Move {store.database} aside to start a new one; `detoxlens log` writes its runs again."
            if store.database is not None
            else "Start the server, or unset MLFLOW_TRACKING_URI to log into the project's own store."
        )
        raise UserError(f"The tracking store {store.shown_uri} cannot be used: {cause} {way_out}") from e


def ui_command(store: Store, *, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's pages on a store, for an environment with `ui_environment` in it."""
    command = [sys.executable, "-m", "mlflow", "ui"]
    if store.artifact_root is not None:
        command += ["--default-artifact-root", store.artifact_root.as_uri()]
    return [*command, "--host", host, "--port", str(port)]


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
