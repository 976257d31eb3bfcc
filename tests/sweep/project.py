"""A very small project to sweep, and the ways to do it."""

import importlib
import os
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from detoxlens import cli
from detoxlens.common.artifacts import Layout
from detoxlens.params.load import load_params
from detoxlens.sweep.command import sweep
from detoxlens.sweep.storage import close, default_url, load_study, open_storage
from tests.pipeline.test_pipeline import new_root, shrink
from tests.root import ROOT

MODEL = "tiny-neox"
SPACE = {
    "finetune": {"sft.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}},
    "preference": {"preference.beta": {"type": "float", "low": 0.05, "high": 1.0, "log": True}},
    "ppo": {
        "lora.r": {"type": "categorical", "choices": [2, 4]},
        "ppo.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
    },
}


def stage(root, name, **arguments):
    importlib.import_module(f"detoxlens.pipeline.stages.{name}").run(
        root, load_params(root / "params.yaml"), **arguments
    )


def prepared(folder):
    """A project whose data, reward model and base model are made, with comments in its params.yaml."""
    root = new_root(folder)
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
    """A sweep in this process."""
    arguments = {
        "method": "ppo",
        "models": [],
        "variant": None,
        "num_trials": trials,
        "study": None,
        "storage": None,
        "num_workers": 1,
        "join": False,
        "track": False,
    }
    return sweep(root, root / "params.yaml", **(arguments | changes))


def begin(root, name, trials, *more, url=None):
    """`detoxlens sweep` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "detoxlens",
        "--root",
        str(root),
        "--no-track",
        "sweep",
        "--trials",
        str(trials),
        "--study",
        name,
        *more,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"DETOXLENS_STORAGE": url} if url else {})
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def trials_of(root, name="ppo-tiny-neox", url=None):
    state = Layout(root).state
    url = url or default_url(root)
    storage = open_storage(url, state)
    try:
        return load_study(storage, url, name)[0].trials
    finally:
        close(storage)


def outcome(root, study):
    """What a study's trials found, and the bytes of what they made."""
    folder = Layout(root).kept("sweeps", study)
    files = sorted(f for f in folder.glob("trial-*/*/*/[fr]*/*") if f.is_file())
    assert len(files) > 5
    trials = trials_of(root, study)
    found = [(t.params, t.values, t.user_attrs["metrics"]) for t in trials]
    return found, {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def main(monkeypatch, root, *args):
    """The exit code of `detoxlens sweep`, in this process."""
    monkeypatch.setattr(sys, "argv", ["detoxlens", "--root", str(root), "--no-track", "sweep", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code
