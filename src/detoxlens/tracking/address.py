"""Address of the store of runs: one SQLite file of the main repository, or wherever MLFLOW_TRACKING_URI points."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from detoxlens.common.errors import UserError
from detoxlens.common.repository import STATE, main_repository
from detoxlens.common.urls import without_password


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
    def is_own(self) -> bool:
        """The project's own database, by whichever path it is named."""
        return self.database is not None and self.database.resolve() == (self.state / "mlflow.db").resolve()

    @property
    def artifact_root(self) -> Path | None:
        """Where a local store keeps artifacts; a server decides itself."""
        if self.database is None:
            return None
        return self.state / "mlartifacts" if self.is_own else self.database.absolute().parent / "mlartifacts"

    @property
    def pending(self) -> Path:
        """Folder of the stage records that have not been sent yet; one per store, the same after the project moves."""
        return self.state / "pending-runs" / ("own" if self.is_own else self._digest)

    @property
    def former_pending(self) -> Path:
        """The folder of former versions, which a move of the project made them lose; `pending` for any other store."""
        return self.state / "pending-runs" / self._digest

    @property
    def _digest(self) -> str:
        address = self.uri if self.database is None else str(self.database.resolve())
        return hashlib.sha256(address.encode()).hexdigest()[:16]

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
    state = main_repository(root) / STATE
    uri = environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state / 'mlflow.db'}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"MLFLOW_TRACKING_URI={uri} names a folder, and MLflow no longer keeps runs in folders. Unset it to use "
            f"{state / 'mlflow.db'}, or give a database or server: sqlite:////path/mlflow.db, postgresql://..., http://..."
        )
    return Store(uri=uri, state=state, project_run_id=environ.get("MLFLOW_RUN_ID") or None)
