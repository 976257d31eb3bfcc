"""Inside `mlflow run`."""

from pathlib import Path

import pytest

from detoxlens.tracking import Store, finish_project_run, resolve_store, track_stage, write_comparable_run
from detoxlens.tracking.store import open_client
from tests.root import ROOT
from tests.tracking.stores import KEY, NEOX_FT, NOISE, runs_of

pytestmark = pytest.mark.filterwarnings(NOISE)


def open_project_run(root: Path, store: Store) -> Store:
    """What `mlflow run` does: a run with the entry point's parameters, its id exported."""
    client, _ = open_client(store)
    run = client.create_run("0")
    client.log_param(run.info.run_id, "models", "tiny-neox")
    return resolve_store(root, {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_RUN_ID": run.info.run_id})


def test_the_project_run_is_parent_of_what_it_started_and_params_do_not_collide(root, store, files):
    project = open_project_run(root, store)
    with track_stage(project, stage="prepare", params={"models": "other"}):
        pass
    with track_stage(project, stage="finetune", **NEOX_FT, params={"models": "other"}):
        pass
    run_id = write_comparable_run(project, **NEOX_FT, **files)
    finish_project_run(project, [KEY])
    client, _ = open_client(store)
    (prepare,) = runs_of(store, stage="prepare")
    (finetune,) = runs_of(store, stage="finetune")
    assert prepare.data.tags["mlflow.parentRunId"] == project.project_run_id
    assert finetune.data.tags["mlflow.parentRunId"] == run_id
    assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == project.project_run_id
    tags = client.get_run(project.project_run_id).data.tags
    assert (tags["detoxlens.noop"], tags["detoxlens.runs"]) == ("false", run_id)


def test_a_project_run_that_found_nothing_to_do_is_a_noop_with_links_to_the_originals(root, store, files):
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    project = open_project_run(root, store)
    finish_project_run(project, [KEY, "not run yet"])
    tags = open_client(store)[0].get_run(project.project_run_id).data.tags
    assert (tags["detoxlens.noop"], tags["detoxlens.runs"]) == ("true", run_id)
    assert f"/runs/{run_id})" in tags["mlflow.note.content"] and "Nothing had changed" in tags["mlflow.note.content"]
    assert "mlflow.parentRunId" not in open_client(store)[0].get_run(run_id).data.tags


@pytest.mark.parametrize(
    ("entry_point", "given", "command"),
    [
        ("main", {}, "repro --models unchanged --variants unchanged --seed unchanged"),
        ("main", {"models": "a,b", "seed": "3"}, "repro --models a,b --variants unchanged --seed 3"),
        ("evaluate", {"variants": "it ft"}, "repro --evaluate-only --models unchanged --variants 'it ft'"),
    ],
)
def test_mlproject_entry_points_call_the_command_line(entry_point, given, command):
    from mlflow.projects._project_spec import load_project

    project = load_project(str(ROOT))
    made = project.get_entry_point(entry_point).compute_command(given, storage_dir=None)
    assert made == f"python -m detoxlens.cli {command}"
    assert (ROOT / project.env_config_path).samefile(ROOT / "python_env.yaml")


def test_outside_mlflow_run_there_is_nothing_to_finish(store):
    finish_project_run(store, [KEY])
    assert runs_of(store) == []
