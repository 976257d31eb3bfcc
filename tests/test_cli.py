"""The command line: complete help at once, one paragraph and a non-zero exit instead of a traceback."""

import subprocess
import sys

import pytest

from detoxlens import __version__, cli
from detoxlens.cli import with_debug_first
from detoxlens.common.errors import UserError
from detoxlens.params.load import load_params
from detoxlens.pipeline.run_stage import run_stage
from tests.root import ROOT


def run(*args, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "detoxlens", *args], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def main_with(monkeypatch, tmp_path, error, *flags):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("detoxlens.pipeline.run_stage.run_stage", fail)
    monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(tmp_path), *flags, "prepare"])
    cli.main()


def test_help_names_every_stage_and_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['detoxlens', '--help']\n"
        "from detoxlens.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'mlflow', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    for stage in (
        "prepare",
        "reward-model",
        "base",
        "finetune",
        "rl",
        "generate",
        "score",
        "attribute",
        "interpolate",
        "report",
    ):
        assert stage in out
    assert "HEAVY []" in out


def test_a_misspelt_param_is_one_paragraph(tmp_path):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("learning_rate: 3.0e-3", "learning_rat: 3.0e-3", 1), "utf-8")
    done = run("--root", str(tmp_path), "--no-track", "prepare")
    assert done.returncode == 2
    assert "Did you mean 'learning_rate'?" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_params_file_and_an_unknown_model_are_named(tmp_path):
    done = run("--root", str(tmp_path), "prepare")
    assert done.returncode == 2 and "params.yaml does not exist" in done.stderr
    done = run("base", "--model", "tiny-nox")
    assert done.returncode == 2 and "Did you mean 'tiny-neox'?" in done.stderr


def test_a_user_error_exits_with_2(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main_with(monkeypatch, tmp_path, UserError("data.rtp=x: no such file"))
    assert capsys.readouterr().err == "detoxlens: data.rtp=x: no such file\n"


def test_a_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    error = ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    with pytest.raises(SystemExit, match="2"):
        main_with(monkeypatch, tmp_path, error)
    assert "pip install 'detoxlens[pipeline]'" in capsys.readouterr().err


def test_the_version_is_printed():
    done = run("--version")
    assert done.stdout.strip() == __version__ and done.returncode == 0


def test_ctrl_c_exits_with_130_and_says_what_is_kept(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit, match="130"):
        main_with(monkeypatch, tmp_path, KeyboardInterrupt())
    assert "the same command resumes from there" in capsys.readouterr().err


def test_an_unforeseen_error_keeps_its_traceback_in_a_file(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        main_with(monkeypatch, tmp_path, ZeroDivisionError("nobody saw it coming"))
    assert "--debug for the traceback" in capsys.readouterr().err and not list(tmp_path.iterdir())  # no project
    (tmp_path / "params.yaml").write_text("run: {}")
    with pytest.raises(SystemExit, match="1"):
        main_with(monkeypatch, tmp_path, ZeroDivisionError("nobody saw it coming"))
    assert "Unexpected ZeroDivisionError: nobody saw it coming" in capsys.readouterr().err
    assert "Traceback" in (tmp_path / ".detoxlens/last-error.txt").read_text()


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    with pytest.raises(ZeroDivisionError):
        main_with(monkeypatch, tmp_path, ZeroDivisionError(), "--debug")


def test_debug_may_stand_after_the_command_too():
    assert with_debug_first(["--root", "x", "plan", "--debug"]) == ["--debug", "--root", "x", "plan"]
    assert with_debug_first(["plan"]) == ["plan"]


@pytest.mark.parametrize("command", ["ui", "store", "sample"])
def test_a_command_that_writes_where_it_stands_refuses_a_folder_that_is_no_project(tmp_path, monkeypatch, command):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = run(command, cwd=tmp_path)
    assert done.returncode == 2 and "is no detoxlens project: it holds no params.yaml" in done.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "params.yaml").write_text("run: {}")
    (tmp_path / "inside").mkdir()
    assert f"Go to {tmp_path}, or give --root {tmp_path}" in run(command, cwd=tmp_path / "inside").stderr


def test_flags_are_shown_without_a_type():
    for command in ([], ["explain"], ["sweep"]):
        shown = run(*command, "--help").stdout
        assert "--help" in shown and "bool" not in shown, shown


def test_the_lists_by_kind_are_written_from_the_variants(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    done = run("--root", str(tmp_path), "variants", "it", "ft")
    assert "-  rl_variants: [rl]\n+  rl_variants: []" in done.stdout and load_params(tmp_path / "params.yaml").run
    assert "variants has no 'rll'. Did you mean 'rl'?" in run("--root", str(tmp_path), "variants", "it", "rll").stderr


@pytest.mark.parametrize("word", ["finetune", "sft", "ft"])
def test_a_sweeps_method_goes_by_each_of_its_names(monkeypatch, word):
    asked = {}
    monkeypatch.setattr("detoxlens.sweep.command.sweep", lambda *_, **given: asked.update(given))
    monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(ROOT), "sweep", "--method", word])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert asked["method"] == "finetune"


def test_a_sweeps_method_that_means_several_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(ROOT), "sweep", "--method", "intervene"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "'intervene' means prompt, steering, dexperts. Allowed: finetune, ppo" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "of"), [("prepare", {}), ("finetune", {"model": "tiny-neox", "variant": "ft"})])
def test_only_rl_runs_in_several_processes(monkeypatch, stage, of):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UserError, match=f"{stage} runs in one process; what can be launched as several is `detoxlens rl`"
    ):
        run_stage(ROOT, ROOT / "params.yaml", stage, **of)
