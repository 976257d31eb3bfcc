"""DVC's experiments, queued and in temporary copies: their runs land in the project's own store."""

import csv
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from ruamel.yaml import YAML

from detoxlens.tracking import resolve_store, stored_runs, stored_versions
from detoxlens.tracking.store import open_client
from tests.tools.project import run, stores
from tests.tracking.stores import NOISE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(NOISE)]
RUNS = ["tiny-neox/base", "tiny-neox/ft"]


def runs(project):
    return sorted(run.name for run in stored_runs(resolve_store(project, {})))


def test_experiments_in_the_queue_and_in_a_temporary_copy_log_into_the_main_store(project):
    run("detoxlens log", cwd=project)
    assert runs(project) == RUNS
    run("dvc exp run --temp -n in-temp -S attribution.max_sequences=4", cwd=project)
    assert runs(project) == sorted(2 * RUNS)
    run("dvc exp run --queue -n queued -S attribution.max_sequences=5", cwd=project)
    run("dvc exp run --run-all", cwd=project)
    assert runs(project) == sorted(3 * RUNS)
    assert stores(project) == [".detoxlens/mlartifacts", ".detoxlens/mlflow.db", "mlflow.db"]
    assert (project / "mlflow.db").is_symlink()
    assert "nothing to commit" in run("git status", cwd=project)  # the workspace was left alone

    table = list(csv.DictReader(io.StringIO(run("dvc exp show --csv", cwd=project))))
    shown = {row["Experiment"]: row["attribution.max_sequences"] for row in table}
    assert (shown["in-temp"], shown["queued"]) == ("4", "5")
    diff = run("dvc exp diff in-temp queued", cwd=project)
    assert "attribution.max_sequences" in diff and "reports/headline/tiny-neox/ft.json" in diff
    run("dvc exp apply queued", cwd=project)
    told = run("detoxlens doctor", cwd=project)  # the outputs now in place lead to the queued experiment's runs
    assert "✓ runs" in told, told


def test_four_commands_at_once_on_a_machine_without_a_store_all_log_and_double_nothing(project):
    shutil.rmtree(project / ".detoxlens", ignore_errors=True)
    (project / "mlflow.db").unlink(missing_ok=True)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: run("detoxlens log", cwd=project), range(4)))
    assert runs(project) == RUNS
    assert [v.version for v in stored_versions(resolve_store(project, {}))] == [1]


def test_a_runs_datasets_carry_the_md5s_of_dvc_lock(project):
    run("detoxlens log", cwd=project)
    lock = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]
    md5s = {dep["path"]: dep["md5"] for stage in lock.values() for dep in stage["deps"]}
    client, experiment_id = open_client(resolve_store(project, {}))
    for found in client.search_runs([experiment_id], "tags.`detoxlens.kind` = 'variant'"):
        data = {json.loads(i.dataset.source)["path"]: i.dataset.digest for i in found.inputs.dataset_inputs}
        assert data == {name: md5s[name] for name in data} and len(data) == 2
