"""Location of a local store's artifacts: MLflow writes absolute folders into its database, and projects are moved.

    experiments.artifact_location   file:///home/ada/old/.detoxlens/mlartifacts/detoxlens
    runs.artifact_uri               file:///home/ada/old/.detoxlens/mlartifacts/detoxlens/0f3a.../artifacts

A project that was renamed would write into its former folder, a copy into the original. So the database follows: all
of its folders below the former root are put below the present one, in one transaction, before anything is written.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from detoxlens.tracking.address import Store

log = logging.getLogger(__name__)
FOLDERS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""(table, column) of MLflow's database that hold artifact folders."""
WAIT_SECONDS = 20.0


def former_root(store: Store, experiment: str) -> str | None:
    """The artifact root that the database names where it is not the store's own any more, else None; as a URI.

    A location that somebody chose (another folder's name, a bucket) is theirs. A database that is not the project's own
    is followed only when its former folder is gone.
    """
    root = store.artifact_root
    if root is None or not store.database.exists():
        return None
    with contextlib.closing(_open(store.database, "ro")) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return None
        query = "SELECT artifact_location FROM experiments WHERE name = ?"
        location = (connection.execute(query, (experiment,)).fetchone() or ("",))[0] or ""
    named, _, last = location.rpartition("/")
    folder = local_folder(named)
    if last != experiment or folder is None or folder.name != root.name or _same(folder, root):
        return None
    return named if store.is_own or not folder.exists() else None


def follow(store: Store, experiment: str) -> None:
    """Puts the database's artifact folders below the store's present root. The caller holds the store's lock."""
    old = former_root(store, experiment)
    if old is None:
        return
    new = store.artifact_root.as_uri()
    with contextlib.closing(_open(store.database, "rw")) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, column in FOLDERS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )
    log.info("The project has moved: the artifacts of its MLflow runs are now those in %s (were: %s).", new, old)


def local_folder(uri: str) -> Path | None:
    """The folder that an artifact location names, or None where it is none of this machine."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme and uri.startswith("/") else None


def _same(a: Path, b: Path) -> bool:
    return a == b or (a.exists() and b.exists() and a.samefile(b))


def _open(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=WAIT_SECONDS)
