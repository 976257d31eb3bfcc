"""The demo of a sweep at its real size: 24 trials, two workers, one killed in the middle, then the chosen point through
`dvc repro`. Needs what `dvc repro` has made here (data, base model, reward model), as last committed.

    python -m pytest -m slow tests/sweep/test_demo.py -s
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from detoxlens.common.artifacts import read_json
from detoxlens.common.errors import UserError
from detoxlens.tracking import flat_metrics
from tests.root import ROOT
from tests.sweep.checkout import DVC, clone, run, start
from tests.sweep.project import trials_of

MODEL, STUDY = "tiny-neox", "demo"
NUM_TRIALS = int(os.environ.get("DEMO_TRIALS", "24"))
MINUTES = 10


@pytest.fixture
def root(tmp_path):
    """A clone with a copy of the results that DVC keeps."""
    if not (ROOT / "models" / MODEL / "base").exists():
        pytest.skip("run `dvc repro` first")
    root = clone(tmp_path / "clone")
    asked = subprocess.run([*DVC, "cache", "dir"], cwd=ROOT, capture_output=True, text=True, check=True)
    shutil.copytree(ROOT / asked.stdout.strip(), root / ".dvc/cache", dirs_exist_ok=True)
    run(root, *DVC, "checkout", "--quiet")
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_demo_sweep_survives_a_kill_and_its_choice_is_reproduced(root):
    program = [sys.executable, "-m", "detoxlens"]
    begun = time.monotonic()
    sweep = start(
        root, *program, "sweep", "--models", MODEL, "--trials", str(NUM_TRIALS), "--workers", "2", "--study", STUDY
    )
    while not ready_for_a_kill(root):
        assert sweep.poll() is None
        time.sleep(1)
    workers = subprocess.run(["pgrep", "-P", str(sweep.pid)], capture_output=True, text=True, check=True)
    os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
    assert sweep.wait() == 0
    minutes = (time.monotonic() - begun) / 60

    trials = trials_of(root, STUDY)
    states = [t.state.name for t in trials]
    failed = [t for t in trials if t.state.name == "FAIL" and "reason" not in t.user_attrs]
    assert len(states) - len(failed) == NUM_TRIALS and not {"RUNNING", "WAITING"} & {*states}
    assert len(failed) <= 1  # none if the worker was killed between two trials
    for t in failed:
        assert [r.params for r in trials if r.system_attrs.get("failed_trial") == t.number] == [t.params]
    front = read_json(root / "reports/sweep" / STUDY / "pareto.json")
    print(f"\n{NUM_TRIALS} trials in {minutes:.1f} min: {states}; front: {[p['objectives'] for p in front]}")

    chosen = front[len(front) // 2]["trial"]
    run(root, *program, "sweep", "apply", "--study", STUDY, "--trial", str(chosen))
    run(root, *program, "repro", "--models", MODEL)
    found = flat_metrics(read_json(root / "reports/metrics.json")[MODEL]["rl"])
    val = {name: value for name, value in found.items() if "/val/" in name}
    assert len(val) > 40
    assert val == {n: v for n, v in trials[chosen].user_attrs["metrics"].items() if "/val/" in n}
    if NUM_TRIALS >= 24:
        assert len(front) >= 3
        assert minutes < MINUTES


def ready_for_a_kill(root):
    """In the middle: a third of the trials are done, and two are under way."""
    try:
        states = [t.state.name for t in trials_of(root, STUDY)]
    except UserError:  # the study is not made yet
        return False
    return len(states) - states.count("RUNNING") >= NUM_TRIALS // 3 and states.count("RUNNING") == 2
