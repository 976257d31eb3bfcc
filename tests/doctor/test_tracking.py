"""Runs against dvc.lock and back; a store, a registry and studies that are absent, damaged or away."""

import sqlite3

import pytest

from detoxlens.doctor import tracking
from detoxlens.doctor.results import Output, Project
from detoxlens.tracking import StoredRun, StoredVersion, resolve_store
from tests.doctor.commands import assert_exists


@pytest.fixture
def project(tmp_path):
    outputs = [Output(path="adapters/ft", md5="aa11", cached=True), Output(path="reports", md5="dd44", cached=False)]
    outputs.append(Output(path="code/score.txt", md5="ff00", cached=False))  # what a stage is made of, by no run
    cache = tmp_path / "files/md5"
    return Project(root=tmp_path, outputs=outputs, cache=cache, remote_name=None, remote_url=None)


NOW = StoredRun(name="m/ft", outputs={"adapters/ft": "aa11", "reports": "dd44"})


def test_each_output_leads_to_a_run_and_each_run_to_outputs(project):
    check = tracking.check_runs(project, [NOW])
    assert check.status == "ok" and "all 2 outputs" in check.detail and "1 of 1 runs" in check.detail


@pytest.mark.parametrize("runs", [[], [StoredRun(name="m/ft", outputs={"adapters/ft": "aa11", "reports": "old"})]])
def test_an_output_without_a_live_run_is_broken_and_mended_by_log(project, runs):
    check = tracking.check_runs(project, runs)
    assert (check.status, check.remedy) == ("broken", "detoxlens log") and "reports" in check.detail
    assert_exists(check.remedy)


def test_an_earlier_result_is_counted_and_told_when_dvc_has_dropped_it(project):
    earlier = StoredRun(name="m/low-kl", outputs={"adapters/ft": "ee55", "reports": "old"})
    check = tracking.check_runs(project, [earlier, NOW])
    assert check.status == "ok" and "1 are of earlier results" in check.detail and "m/low-kl" in check.detail
    (project.cache / "ee").mkdir(parents=True)
    (project.cache / "ee/55").write_bytes(b"")
    assert "m/low-kl" not in tracking.check_runs(project, [earlier, NOW]).detail


def test_a_store_that_is_not_there_damaged_or_away(tmp_path):
    store = resolve_store(tmp_path, {})
    check = tracking.check_store(store)
    assert (check.status, check.remedy) == ("warning", "detoxlens store")
    store.state.mkdir()
    store.database.write_bytes(b"not a database, " * 1000)
    check = tracking.check_store(store)
    assert check.status == "broken" and "not a database" in check.detail
    assert_exists(check.remedy)
    away = resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": "http://ada:secret@127.0.0.1:9"})
    check = tracking.check_store(away)
    assert (check.status, check.remedy) == ("broken", "unset MLFLOW_TRACKING_URI") and "secret" not in check.detail


def test_waiting_records_are_counted(tmp_path):
    store = resolve_store(tmp_path, {})
    store.pending.mkdir(parents=True)
    (store.pending / "1-a.json").write_text("{}")
    assert "1 stage records wait" in tracking.check_store(store).detail


def test_the_registrys_champions_are_named_and_versions_of_deleted_runs_told():
    best = StoredVersion(name="m-detox", version=2, aliases=["champion"], variant="rl", run="live")
    assert "models:/m-detox@champion is rl" in tracking.check_registry([best]).detail
    dead = StoredVersion(name="m-detox", version=1, aliases=[], variant="ft", run="deleted")
    check = tracking.check_registry([best, dead])
    assert (check.status, check.remedy) == ("warning", "detoxlens log") and "m-detox/1" in check.detail


def test_the_storage_that_sweeps_are_told_to_use_is_looked_at(tmp_path):
    environ = {"DETOXLENS_STORAGE": "postgresql://ada:secret@127.0.0.1:1/sweeps"}
    check = tracking.check_studies(tmp_path, environ)
    assert check.status == "broken" and "postgresql://127.0.0.1:1/sweeps" in check.detail
    assert "secret" not in f"{check}" and check.remedy == "unset DETOXLENS_STORAGE"
    environ = {"DETOXLENS_STORAGE": "postgresql://ada:sec/ret@127.0.0.1:1/sweeps"}
    check = tracking.check_studies(tmp_path, environ)
    assert check.status == "broken" and "%2F" in check.detail and "ret@" not in f"{check}"


def test_studies_are_counted_and_a_damaged_file_told(tmp_path):
    database = tmp_path / "optuna.db"
    assert tracking.check_studies(database, {}).detail == "no sweep yet"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE studies (id)")
        connection.execute("CREATE TABLE trials (id)")
        connection.execute("INSERT INTO trials VALUES (1)")
    connection.close()
    assert "0 studies, 1 trials" in tracking.check_studies(database, {}).detail
    database.write_bytes(b"damaged " * 1000)
    check = tracking.check_studies(database, {})
    assert check.status == "broken"
    assert_exists(check.remedy)
