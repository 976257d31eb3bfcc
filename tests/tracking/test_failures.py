"""The remedy fits the cause, and none of them throws a healthy store away."""

import sqlite3

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from detoxlens.common.errors import UserError
from detoxlens.tracking import resolve_store, write_comparable_run
from detoxlens.tracking.failures import Refused, explained
from tests.tracking.stores import NEOX_FT, NOISE

pytestmark = pytest.mark.filterwarnings(NOISE)
ASIDE = "aside"


def said(store, error):
    with pytest.raises(UserError) as caught, explained(store):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.OperationalError("database is locked"), "run the same command again. Nothing is lost"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "the right to write in"),
        (PermissionError(13, "Permission denied", "/x"), "the right to write in"),
        (sqlite3.OperationalError("database or disk is full"), "Make room"),
        (OSError(28, "No space left on device"), "Make room"),
        (MlflowException("Run with id=0f not found", RESOURCE_DOES_NOT_EXIST), "`detoxlens doctor` names"),
        (MlflowException("Invalid value", INVALID_PARAMETER_VALUE), "The store itself is whole"),
        (MlflowException("Detected out-of-date database schema"), "mlflow db upgrade"),
        (MlflowException("Can't locate revision identified by 'x'"), "install that version"),
        (MlflowException("something nobody has thought of"), "left as it is; `detoxlens doctor` examines it"),
    ],
)
def test_the_store_stays_where_it_is_unless_it_is_damaged(tmp_path, error, words):
    message = said(resolve_store(tmp_path, {}), error)
    assert words in message and ASIDE not in message


def test_a_damaged_file_is_moved_aside_not_deleted(tmp_path):
    assert ASIDE in said(resolve_store(tmp_path, {}), sqlite3.DatabaseError("file is not a database"))


@pytest.mark.parametrize(
    "cause", ["Connection refused", "failed with exception HTTPConnectionPool: Max retries exceeded"]
)
def test_a_server_that_is_away_is_started_or_done_without(tmp_path, cause):
    away = resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert "Start the server, or unset MLFLOW_TRACKING_URI" in said(away, MlflowException(cause))


def test_what_one_value_is_refused_for_is_told_apart(store, files):
    with pytest.raises(Refused, match="The store itself is whole"):
        write_comparable_run(store, **NEOX_FT, **(files | {"params": {"": 1}}))
    write_comparable_run(store, **NEOX_FT, **files)
