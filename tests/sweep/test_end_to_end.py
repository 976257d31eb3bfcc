"""A real sweep on a very small study: `sweep`, `sweep apply`, and the stages that find the trial's numbers again."""

import contextlib
import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from ruamel.yaml import YAML

from detoxlens import cli
from detoxlens.artifacts import Layout, read_json, read_rows, write_text
from detoxlens.config import load_params
from detoxlens.errors import UserError
from detoxlens.records import Completion, Prompt
from detoxlens.sweep.apply import apply_trial
from detoxlens.sweep.command import sweep
from detoxlens.sweep.storage import default_url, load_study, open_storage
from detoxlens.tracking import flat_metrics, resolve_store
from detoxlens.tracking.store import open_client
from tests.import_graph import ROOT
from tests.test_pipeline import new_root, shrink

pytestmark = pytest.mark.filterwarnings("default")  # third-party noise is another test's business
MODEL = "tiny-neox"
SPACE = {
    "finetune": {"sft.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}},
    "ppo": {
        "lora.r": {"type": "categorical", "choices": [2, 4]},
        "ppo.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
    },
}


def stage(root, name, **arguments):
    importlib.import_module(f"detoxlens.stages.{name}").run(root, load_params(root / "params.yaml"), **arguments)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose data, reward model and base model are made, with comments in its params.yaml."""
    root = new_root(tmp_path_factory.mktemp("sweep"))
    raw = shrink(load_params(ROOT / "params.yaml").raw, [MODEL])
    raw["run"] |= {"variants": ["it", "rl"], "sft_variants": []}
    raw["sweep"] |= {"constraints": {"fluency/val/perplexity": {"max": 1e9}}, "space": SPACE}
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        file.write("# a comment that stays\n")
        YAML().dump(raw, file)
    for name in ("prepare", "reward_model"):
        stage(root, name)
    stage(root, "base", model=MODEL)
    return root


def run_sweep(root, trials, **changes):
    arguments = {
        "method": "ppo", "models": [], "variant": None, "num_trials": trials, "study": None, "storage": None,
        "num_workers": 1, "join": False, "track": False,
    }  # fmt: skip
    return sweep(root, root / "params.yaml", **(arguments | changes))


def study_of(root, name="ppo-tiny-neox"):
    url = default_url(Layout(root).state)
    return load_study(open_storage(url, Layout(root).state), url, name)[0]


@pytest.fixture(scope="module")
def swept(root):
    """The project after a sweep of two trials, and the folder of its results."""
    return root, run_sweep(root, 2, track=True)


def test_a_sweep_is_resumed_not_begun_again_and_reported(swept):
    root, folder = swept
    run_sweep(root, 2)
    assert [t.state.name for t in study_of(root).trials] == ["COMPLETE"] * 2
    assert folder == root / "reports/sweep/ppo-tiny-neox"
    assert (folder / "reading.md").read_text("utf-8").startswith("# Sweep ppo-tiny-neox\n\n2 trials of `rl`")


def test_trials_never_see_a_test_prompt_or_change_the_project(swept):
    root, _ = swept
    trial = Layout(Layout(root).state / "sweeps/ppo-tiny-neox/trial-00000")
    val = {p.prompt_id for p in read_rows(Layout(root).prompts, Prompt) if p.split == "val"}
    assert {p.prompt_id for p in read_rows(trial.prompts, Prompt)} == val
    for variant in ("it", "rl"):
        assert {c.prompt_id for c in read_rows(trial.completions(MODEL, variant), Completion)} == val
    assert not (root / "adapters" / MODEL / "rl").exists() and not (root / "outputs").exists()


def test_trials_are_children_of_the_sweeps_run(swept):
    root, _ = swept
    run_sweep(root, 2, track=True)  # again changes nothing
    client, experiment = open_client(resolve_store(root, {}))
    runs = client.search_runs([experiment])
    (parent,) = [r for r in runs if r.data.tags["detoxlens.kind"] == "sweep"]
    trials = [r for r in runs if r.data.tags["detoxlens.kind"] == "trial"]
    assert {r.data.tags["mlflow.parentRunId"] for r in trials} == {parent.info.run_id}
    assert sorted(r.data.tags["detoxlens.trial"] for r in trials) == ["0", "1"]
    for run in trials:
        found = study_of(root).trials[int(run.data.tags["detoxlens.trial"])]
        assert run.data.params["ppo.learning_rate"] == json.dumps(found.params["ppo.learning_rate"])
        assert run.data.metrics["toxicity/val/rate_gt_50"] == found.values[0]
        assert len(client.get_metric_history(run.info.run_id, "ppo/reward")) == 2
        names = [a.path for a in client.list_artifacts(run.info.run_id, f"adapter/{MODEL}")]
        assert f"adapter/{MODEL}/adapter_model.safetensors" in names


def test_an_applied_trial_is_found_again_to_the_last_digit(swept):
    root, _ = swept
    trial = study_of(root).trials[1]
    before = (root / "params.yaml").read_text("utf-8")
    diff, stale = apply_trial(root, root / "params.yaml", study="ppo-tiny-neox", number=1, url=None)
    try:
        assert stale == [] and "# a comment that stays" in (root / "params.yaml").read_text("utf-8")
        assert repr(trial.params["ppo.learning_rate"]) in diff
        overrides = load_params(root / "params.yaml").raw["variants"]["rl"]["overrides"]
        assert {f"{s}.{k}": v for s, keys in overrides.items() for k, v in keys.items()} == trial.params
        stage(root, "rl", model=MODEL, variant="rl")
        for variant in ("it", "rl"):
            for name in ("generate", "score"):
                stage(root, name, model=MODEL, variant=variant)
        for variant in ("it", "rl"):
            stage(root, "attribute", model=MODEL, variant=variant)
        stage(root, "report")
        found = flat_metrics(read_json(Layout(root).reports / "metrics.json")[MODEL]["rl"])
        val = {name: value for name, value in found.items() if "/val/" in name}
        assert len(val) > 40
        assert val == {name: value for name, value in trial.user_attrs["metrics"].items() if "/val/" in name}
    finally:
        write_text(root / "params.yaml", before)


def test_a_second_apply_changes_nothing_and_a_wrong_one_names_the_trials(swept, tmp_path):
    root, _ = swept
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text("utf-8").replace("clip_range: 0.2", "clip_range: 0.3"), "utf-8")
    diff, stale = apply_trial(root, path, study="ppo-tiny-neox", number=0, url=None)
    assert diff and any(line.startswith(f"settings.{MODEL}.ppo.clip_range: 0.2, now 0.3") for line in stale)
    assert apply_trial(root, path, study="ppo-tiny-neox", number=0, url=None)[0] == ""
    with pytest.raises(UserError, match=r"no complete trial of that number; there are 0, 1\."):
        apply_trial(root, path, study="ppo-tiny-neox", number=7, url=None)


@contextlib.contextmanager
def params_changed(root, *pairs):
    """The project with texts of its params.yaml replaced."""
    path = root / "params.yaml"
    before = after = path.read_text("utf-8")
    for old, new in pairs:
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    write_text(path, after)
    try:
        yield
    finally:
        write_text(path, before)


GATE = "  gate:\n    after_fraction: 0.5\n    num_prompts: 60\n    max_share_of_it: 1.0\n"
FT = [("sft_variants: []", "sft_variants: [ft]"), ("  - it\n  - rl\n", "  - it\n  - ft\n  - rl\n")]


def outcome(root, study, model=MODEL):
    """What a study's trials found, and the bytes of what they made."""
    folder = Layout(root).state / "sweeps" / study
    files = sorted(f for f in folder.glob("trial-*/*/*/[fr]*/*") if f.is_file())
    assert len(files) > 5
    trials = study_of(root, study).trials
    found = [(t.params, t.values, t.user_attrs["metrics"]) for t in trials]
    return found, {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def test_a_trial_that_passes_the_gate_is_as_if_there_were_none(swept):
    root, _ = swept
    assert all("early_toxicity" in t.user_attrs for t in study_of(root).trials)
    with params_changed(root, (GATE, "  gate:\n")):
        run_sweep(root, 2, study="no-gate")
    assert all("early_toxicity" not in t.user_attrs for t in study_of(root, "no-gate").trials)
    assert outcome(root, "no-gate") == outcome(root, "ppo-tiny-neox")


@pytest.mark.slow
def test_fine_tuning_with_dropout_passes_the_gate_unaltered(root):
    dropout = ("  dropout: 0.0\n", "  dropout: 0.3\n")
    with params_changed(root, *FT, dropout):
        run_sweep(root, 1, method="finetune")
    with params_changed(root, *FT, dropout, (GATE, "  gate:\n")):
        run_sweep(root, 1, method="finetune", study="no-gate-ft")
    (trial,) = study_of(root, "finetune-tiny-neox").trials
    assert trial.state.name == "COMPLETE" and list(trial.params) == ["sft.learning_rate"]
    assert "early_toxicity" in trial.user_attrs
    assert outcome(root, "no-gate-ft") == outcome(root, "finetune-tiny-neox")


def test_a_trial_that_does_not_pass_is_ended_counted_and_told(root, monkeypatch):
    monkeypatch.setattr("detoxlens.sweep.probe.Probe.toxicity_of_it", lambda *_: 0.4)
    monkeypatch.setattr("detoxlens.sweep.probe.share_toxic", lambda scores: 0.75 if len(list(scores)) == 4 else None)
    folder = run_sweep(root, 2, study="hopeless")
    trials = study_of(root, "hopeless").trials
    assert [t.state.name for t in trials] == ["PRUNED"] * 2
    assert not list((Layout(root).state / "sweeps/hopeless").glob("trial-*/"))
    rows = list(csv.DictReader((folder / "trials.csv").read_text("utf-8").splitlines()))
    assert [(r["state"], r["feasible"], r["early_toxicity"]) for r in rows] == [("pruned", "False", "0.75")] * 2
    assert rows[0]["reason"].startswith("gate: 0.75 of the answers of tiny-neox were toxic after 50 % of its training")
    assert "0 trials of `rl` were completed and 2 ended early." in (folder / "reading.md").read_text("utf-8")


def main(monkeypatch, root, *args):
    monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(root), "--no-track", "sweep", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_an_unknown_metric_method_and_model_are_named(swept, monkeypatch, capsys):
    root, _ = swept
    assert main(monkeypatch, root, "--method", "poo") == 2
    assert "Did you mean 'ppo'" in capsys.readouterr().err
    assert main(monkeypatch, root, "--models", "tiny-nex") == 2
    assert "Did you mean 'tiny-neox'" in capsys.readouterr().err
    raw = (root / "params.yaml").read_text("utf-8")
    try:
        write_text(root / "params.yaml", raw.replace("toxicity/val/rate_gt_50", "toxicity/p50/rate_gt_50"))
        assert main(monkeypatch, root, "--study", "other") == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "no trial reports on the validation prompts" in said and "Did you mean 'toxicity/val/rate_gt_50'" in said
        write_text(root / "params.yaml", raw.replace("toxicity/val/rate_gt_50", "toxicity/val/mean"))
        assert main(monkeypatch, root) == 2
        assert "begun with other settings" in capsys.readouterr().err
    finally:
        write_text(root / "params.yaml", raw)


def begin(root, name, trials):
    """`detoxlens sweep` with two workers, in processes of its own."""
    command = [
        sys.executable, "-m", "detoxlens", "--root", str(root), "--no-track", "sweep", "--trials", str(trials),
        "--study", name, "--workers", "2",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})


def wait_for(root, name, num_complete):
    """Until the study has so many complete trials and one is running."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if (Layout(root).state / "optuna.db").exists():
            with contextlib.suppress(UserError):  # not made yet
                states = [t.state.name for t in study_of(root, name).trials]
                if states.count("COMPLETE") >= num_complete and "RUNNING" in states:
                    return
    raise AssertionError(f"{name} did not get {num_complete} trials")


@pytest.mark.slow
def test_a_stopped_sweep_leaves_nothing_running_and_goes_on(root):
    running = begin(root, "stopped", 6)
    wait_for(root, "stopped", 2)
    running.terminate()
    assert running.wait(timeout=120) == 130
    before = study_of(root, "stopped").trials
    states = [t.state.name for t in before]
    assert "RUNNING" not in states and states.count("WAITING") == states.count("FAIL") >= 1
    assert begin(root, "stopped", 6).wait(timeout=300) == 0
    after = [t.state.name for t in study_of(root, "stopped").trials]
    assert after.count("COMPLETE") == 6 and {*after} == {"COMPLETE", "FAIL"}


@pytest.mark.slow
def test_a_killed_worker_loses_no_trial(root):
    """24 trials, 2 workers, one of them killed hard in the middle."""
    running = begin(root, "demo", 24)
    wait_for(root, "demo", 5)
    children = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    assert running.wait(timeout=600) == 0
    study = study_of(root, "demo")
    states = [t.state.name for t in study.trials]
    assert states.count("COMPLETE") == 24 and "RUNNING" not in states and "WAITING" not in states
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    assert len(failed) <= 1  # none if it was killed between two trials
    for t in failed:
        assert [r.params for r in study.trials if r.system_attrs.get("failed_trial") == t.number] == [t.params]
