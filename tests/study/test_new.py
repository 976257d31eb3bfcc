"""`detoxlens init`: a study in a folder of one's own."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.errors import UserError
from detoxlens.params.check import load_checked
from detoxlens.study.new import FILES, new_study
from tests.root import ROOT


def test_a_new_study_is_a_dvc_repository_with_valid_params_and_no_source_to_watch(tmp_path):
    folder = tmp_path / "mine"
    done = CliRunner().invoke(app, ["init", str(folder)])
    assert done.exit_code == 0, done.output
    assert "dvc repro" in done.output
    assert load_checked(folder / "params.yaml").run.models == ["tiny-neox", "tiny-falcon"]
    stages = YAML(typ="safe").load(folder / "dvc.yaml")["stages"]
    assert stages["code"]["always_changed"] and "deps" not in stages["code"]
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"], cwd=folder, capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stderr
    assert "finetune@tiny-neox-ft" in listed.stdout.split()


def test_own_model_prompts_and_grader_replace_the_embedded_ones(tmp_path):
    prompts = tmp_path / "rude.csv"
    prompts.write_text("text\nZorgons are\n", encoding="utf-8")
    folder = tmp_path / "mine"
    new_study(
        folder, models={"m": "/a/checkpoint"}, prompts=prompts, column="text", scorer="recorded:data/recorded/x.jsonl"
    )
    params = load_checked(folder / "params.yaml")
    assert params.run.models == ["m"] and list(params.raw["models"]) == ["m"]
    assert params.model("m").source == "/a/checkpoint"
    assert list(params.raw["splits"]) == ["prompts"]
    assert params.raw["splits"]["prompts"]["columns"] == {"prompt.text": "text"}
    assert (folder / "data/raw/rude.csv").read_text(encoding="utf-8") == prompts.read_text(encoding="utf-8")
    assert params.raw["toxicity"]["headline"] == "recorded:data/recorded/x.jsonl"
    left = str({k: params.raw[k] for k in ("report", "attribution", "ppo")})
    assert "p50" not in left and "polite" not in left


def test_a_folder_is_written_out_and_a_hub_id_stays(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    new_study(Path("mine"), models={"a": "./model", "b": "gguf:model", "c": "owner/model"}, scorer=None)
    params = load_checked(tmp_path / "mine/params.yaml")
    model = (tmp_path / "model").as_posix()
    assert [params.model(m).source for m in "abc"] == [model, f"gguf:{model}", "owner/model"]


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("hf:scorer#rude", "hf:data/recorded/scorers/scorer#rude"),
        ("onnx:graph.onnx#0+1", "onnx:data/recorded/scorers/graph.onnx#0+1"),
        ("recorded:scores.jsonl", "recorded:data/recorded/scores.jsonl"),
        ("hf:owner/scorer", "hf:owner/scorer"),
        ("profanity_check", "profanity_check"),
    ],
)
def test_a_scorer_of_this_machine_is_copied_to_where_dvc_watches(tmp_path, monkeypatch, typed, written):
    (tmp_path / "scorer").mkdir()
    for name in ("scorer/config.json", "graph.onnx", "scores.jsonl"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    new_study(Path("mine"), models={}, scorer=typed)
    assert load_checked(tmp_path / "mine/params.yaml").raw["toxicity"]["headline"] == written
    place = written.partition(":")[2].partition("#")[0]
    if place.startswith("data"):
        assert (tmp_path / "mine" / place).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": {}, "prompts": "nothing.csv"}, "--prompts=.*nothing.csv is no file"),
        ({"models": {"Not A Name": "x"}}, "Not A Name"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, arguments, said):
    folder = tmp_path / "mine"
    if "prompts" in arguments:
        arguments["prompts"] = tmp_path / arguments["prompts"]
    with pytest.raises(UserError, match=said):
        new_study(folder, scorer=None, **arguments)
    assert not folder.exists()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty"):
        new_study(tmp_path, models={}, scorer=None)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_without_git_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="finds no git"):
        new_study(tmp_path / "mine", models={}, scorer=None)
    assert not (tmp_path / "mine").exists()


def test_a_model_without_a_source_is_one_paragraph(tmp_path):
    done = CliRunner().invoke(app, ["init", str(tmp_path / "x"), "--model", "m"])
    assert isinstance(done.exception, UserError) and "NAME=SOURCE" in str(done.exception)


def test_the_wheel_carries_what_a_new_study_starts_from():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    carried = [file for files in pyproject["tool"]["setuptools"]["data-files"].values() for file in files]
    assert sorted(carried) == sorted(FILES)
