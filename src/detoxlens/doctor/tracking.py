"""MLflow's store, its runs against dvc.lock and back, the model registry, and the sweeps' studies."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from detoxlens.common.urls import without_password
from detoxlens.doctor.check import Check, some
from detoxlens.doctor.results import Project, missing_objects
from detoxlens.tracking import EXPERIMENT, Store, StoredRun, StoredVersion, former_root

PROBE_SECONDS = 2.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


def check_store(store: Store) -> Check:
    """The tracking store is there; a database file is whole, a server's port is open. Records that wait are counted."""
    waiting = _waiting(store)
    if store.database is None:
        if cause := _closed(store.uri):
            detail = f"{store.shown_uri}: {cause}{waiting}. Start the server, or log into the project's own store:"
            return Check(name="store", status="broken", detail=detail, remedy="unset MLFLOW_TRACKING_URI")
        return Check(name="store", status="ok", detail=f"{store.shown_uri} answers{waiting}")
    if not store.database.exists():
        detail = f"{store.database} does not exist yet{waiting}"
        return Check(name="store", status="warning", detail=detail, remedy="detoxlens store")
    if cause := _damage(store.database):
        remedy = f"mv {store.database} {store.database}.damaged && detoxlens log"
        return Check(name="store", status="broken", detail=f"{store.database}: {cause}", remedy=remedy)
    if former := former_root(store, EXPERIMENT):
        detail = f"the project was moved or copied: artifacts of runs are still recorded in {former}{waiting}"
        return Check(name="store", status="warning", detail=detail, remedy="detoxlens store")
    return Check(name="store", status="ok", detail=f"{store.shown_uri}{waiting}")


def _waiting(store: Store) -> str:
    """What the store does not have yet of stages' records, or an empty string."""
    waiting, unreadable = (len(list(store.pending.glob(f"*.{word}"))) for word in ("json", "unreadable"))
    message = f"; {waiting} stage records wait and are sent with the next report" if waiting else ""
    return message + (f"; {unreadable} files in {store.pending} hold no record" if unreadable else "")


def check_runs(project: Project, runs: Sequence[StoredRun]) -> Check:
    """Every output of dvc.lock leads to a live run, and every run to outputs that can still be had."""
    made = [o for o in project.outputs if o.md5 is not None and not o.path.startswith("code/")]  # no run made those
    without = [o.path for o in made if not any(run.outputs.get(o.path) == o.md5 for run in runs)]
    if without:
        detail = f"{len(without)} of {len(made)} outputs of dvc.lock have no live run: {some(without)}"
        return Check(name="runs", status="broken", detail=detail, remedy="detoxlens log")
    if bare := [run.name for run in runs if not run.has_artifacts]:
        detail = f"the artifacts of {len(bare)} of {len(runs)} runs are not on this machine: {some(bare)}"
        return Check(name="runs", status="broken", detail=detail, remedy="detoxlens log")
    now = {o.path: o.md5 for o in made}
    kept = {o.path for o in made if o.cached}
    lost = [
        run.name
        for run in runs
        if any(
            path in kept and now[path] != md5 and missing_objects(project.cache, md5)
            for path, md5 in run.outputs.items()
        )
    ]
    present = sum(any(now.get(path) == md5 for path, md5 in run.outputs.items()) for run in runs)
    detail = f"all {len(made)} outputs lead to live runs; {present} of {len(runs)} runs lead to outputs of dvc.lock"
    if present < len(runs):
        detail += f", {len(runs) - present} are of earlier results"
    if lost:
        detail += f"; DVC no longer has the outputs of {len(lost)} (MLflow has their adapters): {some(lost)}"
    return Check(name="runs", status="ok", detail=detail)


def check_registry(versions: Sequence[StoredVersion]) -> Check:
    """Every registered adapter can be had or is named, and so are the champions."""
    gone, deleted = ([f"{v.name}/{v.version}" for v in versions if v.run == state] for state in ("gone", "deleted"))
    if gone:
        detail = f"{len(gone)} versions lead nowhere since `mlflow gc`: {some(gone)}"
        return Check(name="registry", status="warning", detail=detail, remedy="detoxlens log")
    if deleted:
        detail = f"{len(deleted)} versions belong to deleted runs, whose files `mlflow gc` will remove: {some(deleted)}"
        return Check(name="registry", status="warning", detail=detail, remedy="detoxlens log")
    champions = [f"models:/{v.name}@champion is {v.variant}" for v in versions if "champion" in v.aliases]
    detail = "; ".join(champions) or "no champion"
    return Check(name="registry", status="ok", detail=f"{len(versions)} adapters; {detail}")


def check_studies(default: Path, environ: Mapping[str, str]) -> Check:
    """The sweeps' storage can be reached and read, where there is one: that of DETOXLENS_STORAGE, or the default."""
    url = environ.get("DETOXLENS_STORAGE", "")
    if url.startswith("journal:"):
        state = "there" if Path(url.removeprefix("journal:")).exists() else "it does not exist yet"
        return Check(name="studies", status="ok", detail=f"{url}: {state}")
    if url and not url.startswith("sqlite:///"):
        shown = without_password(url)
        if cause := _closed(url):
            detail = f"{shown}: {cause}. Start its server, or sweep in the project's own file:"
            return Check(name="studies", status="broken", detail=detail, remedy="unset DETOXLENS_STORAGE")
        return Check(name="studies", status="ok", detail=f"{shown}: there")
    database = Path(url.removeprefix("sqlite:///")) if url else default
    if not database.exists():
        return Check(name="studies", status="ok", detail="no sweep yet")
    if cause := _damage(database):
        return Check(
            name="studies", status="broken", detail=f"{database}: {cause}", remedy=f"mv {database} {database}.damaged"
        )
    with _read_only(database) as connection:
        (studies,) = connection.execute("SELECT count(*) FROM studies").fetchone()
        (trials,) = connection.execute("SELECT count(*) FROM trials").fetchone()
    connection.close()
    return Check(name="studies", status="ok", detail=f"{database}: {studies} studies, {trials} trials")


def _closed(uri: str) -> str:
    """Why nothing listens where a server should, or an empty string."""
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:  # a password with characters that ought to be escaped
        return "its user name or password holds / ? or #, which must be written %2F %3F %23"
    port = port or PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname is None or port is None:
        return ""
    try:
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()
    except OSError as e:
        return e.strerror or str(e)
    return ""


def _damage(database: Path) -> str:
    """What is wrong with an SQLite file, or an empty string."""
    try:
        connection = _read_only(database)
        try:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as e:
        return str(e)
    return "" if answer == "ok" else str(answer)


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=PROBE_SECONDS)
