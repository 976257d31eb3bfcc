"""Where the store is, its first moments and its end."""

import subprocess
import sys

import pytest

from detoxlens.common.errors import UserError
from detoxlens.tracking import (
    charts_url,
    prepare_store,
    resolve_store,
    send_pending,
    track_stage,
    ui_command,
    ui_environment,
)
from detoxlens.tracking.failures import explained
from detoxlens.tracking.store import open_client
from tests.tracking.stores import NEOX_FT, NOISE, runs_of

pytestmark = pytest.mark.filterwarnings(NOISE)


def test_mlflow_tracking_uri_wins(tmp_path):
    store = resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": "http://user:secret@tracking.example:5000"})
    assert store.uri == "http://user:secret@tracking.example:5000"
    assert store.artifact_root is None and store.database is None
    assert store.shown_uri == "http://tracking.example:5000"
    assert store.pending.is_relative_to(tmp_path.resolve()) and "secret" not in str(store.pending)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder_as_tracking_uri_is_refused(tmp_path, uri):
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI=.*no longer keeps runs in folders"):
        resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": uri})


def test_plain_mlflow_commands_in_the_projects_root_find_the_same_store(template):
    """MLflow's default is `mlflow.db` in the working folder, and `mlflow run` exports its absolute path."""
    link = template / "mlflow.db"
    assert link.samefile(template / ".detoxlens/mlflow.db")
    assert not link.readlink().is_absolute()
    by_mlflow_run = resolve_store(template, {"MLFLOW_TRACKING_URI": f"sqlite:///{link}", "MLFLOW_RUN_ID": "abc"})
    own = resolve_store(template, {})
    assert (by_mlflow_run.pending, by_mlflow_run.artifact_root) == (own.pending, own.artifact_root)
    assert by_mlflow_run.project_run_id == "abc"


def test_artifacts_lie_in_the_state_folder_whoever_opens_the_first_run(store):
    """`mlflow run --experiment-name detoxlens` would otherwise make the experiment, with artifacts in ./mlruns."""
    client, experiment_id = open_client(store)
    for experiment in (client.get_experiment("0"), client.get_experiment(experiment_id)):
        assert "/.detoxlens/mlartifacts/" in experiment.artifact_location


def test_the_ui_is_told_its_store_where_no_other_user_can_read_it(store):
    command = ui_command(store, port=5001)
    assert command[1:4] == ["-m", "mlflow", "ui"] and store.uri not in " ".join(command)
    assert ui_environment(store)["MLFLOW_BACKEND_STORE_URI"] == store.uri
    assert command[-6:] == ["--workers", "1", "--host", "127.0.0.1", "--port", "5001"]
    assert charts_url(store, port=5001) == "http://127.0.0.1:5001/#/experiments/1/runs?compareRunsMode=CHART"


LOG_ONE_STAGE = """
import sys
from pathlib import Path
from detoxlens.tracking import resolve_store, track_stage
with track_stage(resolve_store(Path(sys.argv[1]), {}), stage=sys.argv[2], params={}, send_after_seconds=0):
    pass
"""


def test_four_processes_at_once_on_a_machine_without_a_store_all_log(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_ONE_STAGE, str(tmp_path), f"s{i}"], stderr=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    errors = [w.communicate(timeout=100)[1] for w in workers]
    assert [w.returncode for w in workers] == [0] * 4 and errors == [""] * 4
    store = resolve_store(tmp_path, {})
    assert send_pending(store) == 0
    assert sorted(r.data.tags["detoxlens.stage"] for r in runs_of(store)) == ["s0", "s1", "s2", "s3"]
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("damage", [lambda whole: b"not a database, " * 1000, lambda whole: whole[: len(whole) // 2]])
def test_a_damaged_store_is_told_in_one_paragraph_and_nothing_is_lost(store, damage, caplog):
    damaged = damage(store.database.read_bytes())
    store.database.write_bytes(damaged)
    with track_stage(store, stage="generate", **NEOX_FT, params={}, send_after_seconds=0):
        pass
    assert "kept and sent later" in caplog.text and len(list(store.pending.glob("*.json"))) == 1
    with pytest.raises(UserError, match=r"tracking store .* cannot be used: .*Move .*mlflow\.db aside"):
        send_pending(store)
    assert store.database.read_bytes() == damaged and len(list(store.pending.glob("*.json"))) == 1


def test_a_store_of_another_mlflow_version_is_told_how_to_upgrade(store):
    import sqlite3

    with sqlite3.connect(store.database) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    with pytest.raises(UserError, match="mlflow db upgrade"):
        prepare_store(store)


def test_an_unreachable_server_costs_no_result_and_no_record(root, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = resolve_store(root, {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"})
    with track_stage(away, stage="generate", **NEOX_FT, params={}, send_after_seconds=0) as run:
        run.log_metrics({"x": 1})
    assert "cannot be used" in caplog.text and "kept and sent later" in caplog.text and "secret" not in caplog.text
    assert len(list(away.pending.glob("*.json"))) == 1
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be used.*Start the server, or unset"):
        send_pending(away)


def test_a_server_that_wants_a_name_is_told_how_to_give_one(root):
    away = resolve_store(root, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    refused = OSError("API request to endpoint /x failed with error code 401 != 200.")
    with pytest.raises(UserError, match="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"), explained(away):
        raise refused
