"""Errors of a store, each in one paragraph whose remedy fits the cause. None destroys what is kept."""

from __future__ import annotations

import contextlib
import errno
import re
import sqlite3
from collections.abc import Iterator

from detoxlens.common.errors import UserError
from detoxlens.common.urls import without_password_of
from detoxlens.tracking.address import Store

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
"""What MLflow answers when it is the value that it cannot take, not the store that fails."""
_DAMAGED = re.compile(r"file is not a database|disk image is malformed|file is encrypted")
_LOCKED = re.compile(r"database (table )?is locked|unable to open database file.*locked")
_READ_ONLY = re.compile(r"readonly database|read-only|Permission denied|unable to open database file")
_FULL = re.compile(r"disk is full|No space left")
_AWAY = re.compile(r"Connection|Max retries|could not translate host|could not connect|timed out|error code 5\d\d")


class Refused(UserError):
    """MLflow takes one value not; the store itself is whole, and takes others."""


@contextlib.contextmanager
def explained(store: Store) -> Iterator[None]:
    """Turns what MLflow, its database or its server raise into a UserError with the remedy for that cause."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as e:
        lines = [line for line in without_password_of(store.uri, str(e)).splitlines() if line.strip()]
        cause = lines[0].strip() if lines else type(e).__name__
        if getattr(e, "error_code", "") in REFUSALS and not _DAMAGED.search(cause):
            raise Refused(
                f"The tracking store {store.shown_uri} does not take a value: {cause} The store itself is whole; what "
                "it did not take is kept here and tried again with the next `detoxlens log`."
            ) from e
        raise UserError(f"The tracking store {store.shown_uri} cannot be used: {cause} {remedy(store, e)}") from e


def remedy(store: Store, error: Exception) -> str:
    """A sentence on what to do; the store, and the records that wait to be sent, are left as they are."""
    said, code = str(error), getattr(error, "error_code", "")
    local = store.database is not None
    if "error code 401" in said or "error code 403" in said:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    if "Can't locate revision" in said:
        return "A newer MLflow has made it: install that version, or `mlflow db upgrade` will not know it either."
    if "out-of-date" in said:
        return f"Run `mlflow db upgrade {store.shown_uri}` after a backup."
    if local and _DAMAGED.search(said):
        return f"Move {store.database} aside to start a new one; `detoxlens log` writes its runs again."
    if _LOCKED.search(said):
        return "Another process is writing to it: run the same command again. Nothing is lost."
    if _FULL.search(said) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "Make room (`dvc gc -w` drops cached data that no params use) and run the same command again."
    if _READ_ONLY.search(said) or isinstance(error, PermissionError):
        where = store.database.parent if local else store.shown_uri
        return f"Give this user the right to write in {where}, then run the same command again."
    if not local and (_AWAY.search(said) or isinstance(error, OSError)):
        return "Start the server, or unset MLFLOW_TRACKING_URI to log into the project's own store."
    if code == "RESOURCE_DOES_NOT_EXIST":
        return "It was deleted for good (`mlflow gc`); `detoxlens doctor` names what still leads there."
    return "The store is left as it is; `detoxlens doctor` examines it."
