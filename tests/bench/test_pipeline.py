"""`detoxlens bench pipeline`: the clone, the clock and the tables, on a repository with a toy pipeline."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from detoxlens.bench import pipeline as bench
from detoxlens.common.errors import UserError
from tests.root import ROOT


def git(folder, *arguments):
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name in ("kept.txt", "gone.txt"):
        (folder / name).write_text("as committed")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    (folder / "kept.txt").write_text("as edited")
    (folder / "new.txt").write_text("new")
    (folder / "gone.txt").unlink()
    return folder


def test_a_clone_is_of_the_last_commit(repository):
    with bench.checkout(repository, working_tree=False) as (clone, commit):
        assert (clone / "kept.txt").read_text() == "as committed"
        assert not (clone / "new.txt").exists() and "changes" not in commit
    assert not clone.exists()


def test_or_of_the_files_as_they_are(repository):
    with bench.checkout(repository, working_tree=True) as (clone, commit):
        assert (clone / "kept.txt").read_text() == "as edited"
        assert (clone / "new.txt").exists() and not (clone / "gone.txt").exists()
        assert commit.endswith(" + changes")


def test_a_folder_without_a_commit_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no commit"), bench.checkout(tmp_path, working_tree=False):
        pass


def test_the_environment_runs_the_clones_source_and_logs_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere.example")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = bench.bench_environment(tmp_path / "clone", tmp_path / "timings.jsonl")
    assert "MLFLOW_TRACKING_URI" not in environment and "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["PYTHONPATH"] == str(tmp_path / "clone" / "src")
    assert environment["PATH"].startswith(str(tmp_path / "bin"))


def test_the_clock_stands_in_for_the_command_and_times_imports_apart(tmp_path):
    environment = bench.bench_environment(ROOT, tmp_path / "timings.jsonl")
    for arguments, code in ((["version"], 0), (["base", "--model", "no-such-model"], 2)):
        done = subprocess.run(
            ["detoxlens", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert [line["arguments"][0] for line in lines] == ["version", "base"]
    for line in lines:
        assert 0.05 < line["import_seconds"] <= line["process_seconds"]  # typer and rich take longer than that


def test_nested_imports_count_once(tmp_path):
    """outer sleeps .2 s and imports inner, which sleeps .2 s: .4 s in all, not .6."""
    (tmp_path / "inner_module.py").write_text("import time; time.sleep(0.2)")
    (tmp_path / "outer_module.py").write_text("import time, inner_module; time.sleep(0.2)")
    code = (
        "import time\nfrom detoxlens.bench.stage_clock import ImportClock\nclock = ImportClock(); clock.start()\n"
        "time.sleep(0.2)\nimport outer_module\nimport outer_module\nprint(clock.seconds)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert 0.4 <= float(done.stdout) < 0.55


def test_seconds_of_stages_by_hand():
    # prepare starts at 3 s, base at 10 s, all ends at 30 s; the processes took 5 s and 18 s
    starts = [("prepare", 3.0), ("base@m", 10.0)]
    lines = [
        {"import_seconds": 2.0, "process_seconds": 5.0, "cpu_seconds": 4.0},
        {"import_seconds": 3.0, "process_seconds": 18.0, "cpu_seconds": 30.0},
    ]
    first, second = bench.stage_times(starts, lines, 30.0)
    assert (first.import_seconds, first.work_seconds, first.dvc_seconds) == (2.0, 3.0, 5.0)  # 10 - 5
    assert (second.import_seconds, second.work_seconds, second.dvc_seconds) == (3.0, 15.0, 2.0)  # 20 - 18


def test_a_toy_pipeline_is_run_once_and_then_finds_nothing_to_do(tmp_path):
    git(tmp_path, "init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text("stages:\n  one:\n    cmd: echo 1 > out\n    outs: [out]\n")
    console = Console(quiet=True)
    seconds, starts = bench.repro(tmp_path, dict(os.environ), console)
    assert [name for name, _ in starts] == ["one"] and 0 < starts[0][1] < seconds
    assert bench.repro(tmp_path, dict(os.environ), console)[1] == []
    (tmp_path / "dvc.yaml").write_text("stages:\n  two:\n    cmd: echo broken && false\n    outs: [out2]\n")
    with pytest.raises(UserError, match=r"dvc repro` failed in the clone:.*broken"):
        bench.repro(tmp_path, dict(os.environ), console)


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path):
    with pytest.raises(UserError, match="out of tea"):
        bench.run([sys.executable, "-c", "import sys; sys.exit('out of tea')"], tmp_path, os.environ)


def test_the_tables_sum_up_and_colour_what_was_missed():
    one = bench.StageTime(stage="prepare", import_seconds=1, work_seconds=2, dvc_seconds=3, cpu_seconds=4)
    console = Console(width=100, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(bench.stage_table([one, one]))
    console.print(bench.total_table({"cold_seconds": (700.0, 600.0), "help_seconds": (0.3, 0.5)}))
    text = console.export_text(styles=True)
    assert "12.0" in text  # 2 * (1 + 2 + 3)
    assert "\x1b[31m700.00" in text and "\x1b[32m0.30" in text
