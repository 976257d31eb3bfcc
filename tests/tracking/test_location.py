"""Artifacts lie in the project, wherever it is moved or copied to."""

import contextlib
import shutil
import sqlite3

import pytest

from detoxlens.tracking import former_root, resolve_store, send_pending, stored_runs, track_stage, write_comparable_run
from detoxlens.tracking.location import FOLDERS
from detoxlens.tracking.store import EXPERIMENT, prepare_store
from tests.tracking.stores import NEOX_FT, NOISE, everything, runs_of

pytestmark = pytest.mark.filterwarnings(NOISE)


def written(root, files):
    """The same results, as read in the project at `root`."""
    return files | {
        "root": root,
        "adapter": root / "adapters/tiny-neox/ft",
        "figures": [root / "reports/figures/entropy.svg"],
        "datasets": [],
    }


def folders(store):
    """Every artifact folder that the database names."""
    with contextlib.closing(sqlite3.connect(store.database)) as connection:
        rows = [connection.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in FOLDERS]
    return {value for found in rows for (value,) in found if value}


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_moved_project_writes_and_finds_its_artifacts_where_it_is(store, root, files, how):
    old = write_comparable_run(store, **NEOX_FT, **written(root, files))
    with track_stage(store, stage="score", **NEOX_FT, params={}):
        pass
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    new = root.with_name("a b")
    (shutil.move if how == "renamed" else shutil.copytree)(root, new)
    moved = resolve_store(new, {})
    assert former_root(moved, EXPERIMENT) == (root / ".detoxlens/mlartifacts").as_uri()
    assert len(list(moved.pending.glob("*.json"))) == 1  # what waited to be sent has come along
    other = {"model": "tiny-neox", "variant": "rl", "key": "b" * 64}
    made = write_comparable_run(moved, **other, **written(new, files))
    assert former_root(moved, EXPERIMENT) is None
    assert all(folder.startswith((new / ".detoxlens/mlartifacts").as_uri()) for folder in folders(moved))
    for run in (old, made):
        assert "adapter/adapter_model.safetensors" in everything(moved, run)["artifacts"]
    assert len(runs_of(moved, kind="stage")) == 1
    assert root.exists() == (how == "copied")
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == (before if how == "copied" else {})


def test_a_folder_that_somebody_chose_stays_theirs(store, tmp_path):
    prepare_store(store)
    theirs = (tmp_path / "shared-artifacts/runs").as_uri()
    with contextlib.closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (theirs, EXPERIMENT))
    prepare_store(store)
    assert theirs in folders(store)


def test_another_database_is_followed_only_when_its_former_folder_is_gone(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    prepare_store(resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": f"sqlite:///{here}/runs.db"}))
    (here / "mlartifacts").mkdir(exist_ok=True)
    shutil.copytree(here, there)
    copy = resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": f"sqlite:///{there}/runs.db"})
    assert former_root(copy, EXPERIMENT) is None
    shutil.rmtree(here)
    assert former_root(copy, EXPERIMENT) == (here / "mlartifacts").as_uri()


def test_artifacts_that_were_deleted_or_left_behind_are_written_again(store, files):
    run = write_comparable_run(store, **NEOX_FT, **files)
    before = everything(store, run)
    shutil.rmtree(store.artifact_root)
    assert [found.has_artifacts for found in stored_runs(store)] == [False]
    assert write_comparable_run(store, **NEOX_FT, **files) == run
    assert everything(store, run)["artifacts"] == before["artifacts"]
    assert send_pending(store) == 0
