"""`mlflow run` on the folder and on a git URL: one store, and a project run that leads to the results."""

import socket
import subprocess

import pytest

from detoxlens.tracking import resolve_store
from detoxlens.tracking.store import open_client
from tests.tools.project import run, stores
from tests.tracking.stores import NOISE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(NOISE)]
OPTIONS = "--env-manager local --experiment-name detoxlens"
STORE = [".detoxlens/mlartifacts", ".detoxlens/mlflow.db", "mlflow.db"]


def project_runs(project):
    """The runs that `mlflow run` opened, newest first."""
    client, experiment_id = open_client(resolve_store(project, {}))
    found = client.search_runs([experiment_id], order_by=["attributes.start_time DESC"])
    return [r for r in found if "mlflow.project.entryPoint" in r.data.tags]


@pytest.fixture
def logged(project):
    run("detoxlens log", cwd=project)
    return project


def test_on_the_folder_each_entry_point_opens_one_run_in_the_projects_store(logged):
    run(f"mlflow run . {OPTIONS}", cwd=logged)
    run(f"mlflow run . -e evaluate {OPTIONS} -P models=tiny-neox", cwd=logged)
    evaluate, main = project_runs(logged)
    assert [r.info.status for r in (evaluate, main)] == ["FINISHED"] * 2
    assert main.data.tags["detoxlens.noop"] == "true" and len(main.data.tags["detoxlens.runs"].split(",")) == 2
    assert evaluate.data.params == {"models": "tiny-neox", "variants": "unchanged"}
    assert stores(logged) == STORE and (logged / "mlflow.db").is_symlink()


def test_a_changed_parameter_is_written_into_params_and_its_stages_are_children(logged):
    run(f"mlflow run . -e evaluate {OPTIONS} -P variants=it", cwd=logged)
    (evaluate,) = project_runs(logged)
    assert "variants: [it]" in (logged / "params.yaml").read_text()
    assert evaluate.data.tags["detoxlens.noop"] == "false"
    assert stores(logged) == STORE


@pytest.fixture
def git_url(logged):
    """The project as git serves it; MLflow takes a file:// URL for the folder itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"]
    server = subprocess.Popen([*command, f"--base-path={logged.parent}"], stderr=subprocess.DEVNULL)
    try:
        yield f"git://127.0.0.1:{port}/{logged.name}"
    finally:
        server.terminate()
        server.wait()


def test_on_a_git_url_the_results_come_from_the_shared_cache_and_no_store_is_left_in_the_copy(
    logged, git_url, tmp_path
):
    copies = tmp_path / "copies"
    copies.mkdir()
    run(f"mlflow run {git_url} {OPTIONS}", cwd=logged, TMPDIR=str(copies))
    (main,) = project_runs(logged)
    assert main.info.status == "FINISHED" and main.data.tags["mlflow.source.name"] == git_url
    assert len(main.data.tags["detoxlens.runs"].split(",")) == 2
    assert stores(logged) == STORE
    (copy,) = (p.parent for p in copies.rglob("MLproject"))
    assert (copy / "reports/index.html").exists() and stores(copy) == []


def test_the_sweep_entry_point_takes_typed_parameters(logged):
    run(f"mlflow run . -e sweep {OPTIONS} -P method=finetune -P trials=1", cwd=logged)
    (sweep,) = project_runs(logged)
    assert sweep.info.status == "FINISHED" and sweep.data.params["trials"] == "1"
    assert stores(logged) == STORE
    assert (logged / "reports/sweep").is_dir()
