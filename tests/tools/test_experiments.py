"""DVC's experiments, queued and in temporary copies: their runs land in the project's own store."""

import csv
import io

import pytest

from detoxlens.tracking import resolve_store, stored_runs
from tests.tools.project import run, stores
from tests.tracking.stores import NOISE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(NOISE)]
RUNS = ["tiny-neox/ft", "tiny-neox/it"]


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
