"""A real sweep on a very small study: `sweep`, `sweep apply`, and the stages that find the trial's numbers again."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import time

import pytest

from detoxlens.common.artifacts import Layout, read_json, read_rows, write_text
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Prompt
from detoxlens.params.load import load_params
from detoxlens.sweep.apply import apply_trial
from detoxlens.tracking import flat_metrics, resolve_store
from detoxlens.tracking.store import open_client
from tests.sweep.project import MODEL, begin, main, outcome, run_sweep, stage, trials_of

pytestmark = pytest.mark.filterwarnings("default")  # third-party noise is another test's business


@pytest.fixture(scope="module")
def swept(root):
    """The project after a sweep of two trials, and the folder of its results."""
    return root, run_sweep(root, 2, track=True)


def test_a_sweep_is_resumed_not_begun_again_and_reported(swept):
    root, folder = swept
    run_sweep(root, 2)
    assert [t.state.name for t in trials_of(root)] == ["COMPLETE"] * 2
    assert folder == root / "reports/sweep/ppo-tiny-neox"
    assert (folder / "conclusions.md").read_text("utf-8").startswith("# Sweep ppo-tiny-neox\n\n2 trials of `rl`")


def test_trials_never_see_a_test_prompt_or_change_the_project(swept):
    root, _ = swept
    trial = Layout(Layout(root).kept("sweeps/ppo-tiny-neox/trial-00000"))
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
        found = trials_of(root)[int(run.data.tags["detoxlens.trial"])]
        assert run.data.params["ppo.learning_rate"] == json.dumps(found.params["ppo.learning_rate"])
        assert run.data.metrics["toxicity/val/rate_gt_50"] == found.values[0]
        assert len(client.get_metric_history(run.info.run_id, "ppo/reward")) == 2
        names = [a.path for a in client.list_artifacts(run.info.run_id, f"adapter/{MODEL}")]
        assert f"adapter/{MODEL}/adapter_model.safetensors" in names


def test_an_applied_trial_is_found_again_to_the_last_digit(swept):
    root, _ = swept
    trial = trials_of(root)[1]
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


GATE = "  gate:\n    after_fraction: 0.5\n    num_prompts: 60\n    max_share_of_it: 0.95\n"
FT = [("sft_variants: []", "sft_variants: [ft]"), ("  - it\n  - rl\n", "  - it\n  - ft\n  - rl\n")]


def test_a_trial_that_passes_the_gate_is_as_if_there_were_none(swept):
    root, _ = swept
    assert all("early_toxicity" in t.user_attrs for t in trials_of(root))
    with params_changed(root, (GATE, "  gate:\n")):
        run_sweep(root, 2, study="no-gate")
    assert all("early_toxicity" not in t.user_attrs for t in trials_of(root, "no-gate"))
    assert outcome(root, "no-gate") == outcome(root, "ppo-tiny-neox")


@pytest.mark.slow
def test_fine_tuning_with_dropout_passes_the_gate_unaltered(root):
    dropout = ("  dropout: 0.0\n", "  dropout: 0.3\n")
    with params_changed(root, *FT, dropout):
        run_sweep(root, 1, method="finetune")
    with params_changed(root, *FT, dropout, (GATE, "  gate:\n")):
        run_sweep(root, 1, method="finetune", study="no-gate-ft")
    (trial,) = trials_of(root, "finetune-tiny-neox")
    assert trial.state.name == "COMPLETE" and list(trial.params) == ["sft.learning_rate"]
    assert "early_toxicity" in trial.user_attrs
    assert outcome(root, "no-gate-ft") == outcome(root, "finetune-tiny-neox")


@pytest.mark.slow
def test_preference_tuning_is_swept_by_its_own_space(root):
    dpo = [
        ("preference_variants: []", "preference_variants: [dpo]"),
        ("  - it\n  - rl\n", "  - it\n  - dpo\n  - rl\n"),
        ("  rl:\n    kind: rl\n", "  dpo:\n    kind: preference\n    algorithm: dpo\n  rl:\n    kind: rl\n"),
        ("    min_margin: 0.3\n", "    min_margin: 0.0\n"),
    ]
    with params_changed(root, *dpo):
        run_sweep(root, 1, method="preference")
    (trial,) = trials_of(root, "preference-tiny-neox")
    assert trial.state.name == "COMPLETE" and list(trial.params) == ["preference.beta"]
    assert {"training/preference/val_loss", "training/preference/val_margin"} <= set(trial.user_attrs["metrics"])


def test_a_trial_that_does_not_pass_is_ended_counted_and_told(root, monkeypatch):
    monkeypatch.setattr("detoxlens.sweep.probe.Probe.toxicity_of_it", lambda *_: 0.4)
    monkeypatch.setattr("detoxlens.sweep.probe.share_toxic", lambda scores: 0.75 if len(list(scores)) == 4 else None)
    folder = run_sweep(root, 2, study="hopeless", track=True)
    trials = trials_of(root, "hopeless")
    assert [t.state.name for t in trials] == ["PRUNED"] * 2
    assert not list(Layout(root).kept("sweeps/hopeless").glob("trial-*/"))
    rows = list(csv.DictReader((folder / "trials.csv").read_text("utf-8").splitlines()))
    assert [(r["state"], r["feasible"], r["early_toxicity"]) for r in rows] == [("pruned", "False", "0.75")] * 2
    assert rows[0]["reason"].startswith("gate: 0.75 of the answers of tiny-neox were toxic after 50 % of its training")
    assert "0 trials of `rl` were completed and 2 ended early." in (folder / "conclusions.md").read_text("utf-8")
    client, experiment = open_client(resolve_store(root, {}))
    runs = client.search_runs([experiment], "tags.`detoxlens.sweep` = 'hopeless' and tags.`detoxlens.kind` = 'trial'")
    told = [(r.info.status, r.data.tags["detoxlens.state"], r.data.tags["detoxlens.reason"][:5]) for r in runs]
    assert told == [("KILLED", "pruned", "gate:")] * 2


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_gate_ends_hopeless_trials_of_trls_algorithms_and_alters_no_other(root, monkeypatch, algorithm):
    asked = ("    algorithm: ppo\n", f"    algorithm: {algorithm}\n")
    with params_changed(root, asked):
        run_sweep(root, 1, study=algorithm)
        with monkeypatch.context() as patch:
            patch.setattr("detoxlens.sweep.probe.Probe.toxicity_of_it", lambda *_: 0.4)
            patch.setattr("detoxlens.sweep.probe.share_toxic", lambda scores: 0.75)
            run_sweep(root, 1, study=f"{algorithm}-hopeless")
    with params_changed(root, asked, (GATE, "  gate:\n")):
        run_sweep(root, 1, study=f"{algorithm}-no-gate")
    assert all("early_toxicity" in t.user_attrs for t in trials_of(root, algorithm))
    assert outcome(root, algorithm) == outcome(root, f"{algorithm}-no-gate")
    (ended,) = trials_of(root, f"{algorithm}-hopeless")
    assert ended.state.name == "PRUNED" and "toxic after 50 % of its training" in ended.user_attrs["reason"]
    assert not list(Layout(root).kept(f"sweeps/{algorithm}-hopeless").glob("trial-*/"))


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


def wait_for(root, name, num_complete):
    """Until the study has so many complete trials and one is running."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if Layout(root).sweeps_database.exists():
            with contextlib.suppress(UserError):  # not made yet
                states = [t.state.name for t in trials_of(root, name)]
                if states.count("COMPLETE") >= num_complete and "RUNNING" in states:
                    return
    raise AssertionError(f"{name} did not get {num_complete} trials")


@pytest.mark.slow
def test_a_stopped_sweep_leaves_nothing_running_and_goes_on(root):
    running = begin(root, "stopped", 6, "--workers", "2")
    wait_for(root, "stopped", 2)
    running.terminate()
    assert running.wait(timeout=120) == 130
    before = trials_of(root, "stopped")
    states = [t.state.name for t in before]
    assert "RUNNING" not in states and states.count("WAITING") == states.count("FAIL") >= 1
    assert begin(root, "stopped", 6, "--workers", "2").wait(timeout=300) == 0
    after = [t.state.name for t in trials_of(root, "stopped")]
    assert after.count("COMPLETE") == 6 and {*after} == {"COMPLETE", "FAIL"}


@pytest.mark.slow
def test_a_killed_worker_loses_no_trial(root):
    """24 trials, 2 workers, one of them killed hard in the middle."""
    running = begin(root, "demo", 24, "--workers", "2")
    wait_for(root, "demo", 5)
    children = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    assert running.wait(timeout=600) == 0
    trials = trials_of(root, "demo")
    states = [t.state.name for t in trials]
    assert states.count("COMPLETE") == 24 and "RUNNING" not in states and "WAITING" not in states
    failed = [t for t in trials if t.state.name == "FAIL"]
    assert len(failed) <= 1  # none if it was killed between two trials
    for t in failed:
        assert [r.params for r in trials if r.system_attrs.get("failed_trial") == t.number] == [t.params]
