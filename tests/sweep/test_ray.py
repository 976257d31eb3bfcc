"""The same sweep on a local Ray cluster of two nodes, and what can be wrong with one."""

import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from detoxlens.jobs.cluster import Secrets
from detoxlens.sweep import ray_engine
from tests.ray_cluster import ray_cluster
from tests.root import ROOT
from tests.sweep.project import begin, main, outcome, run_sweep, trials_of

__all__ = ["ray_cluster"]
slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("default")


@slow
def test_trials_on_ray_are_those_of_the_local_engine_byte_for_byte(root, ray_cluster):
    assert begin(root, "on-ray", 4, "--workers", "2", "--engine", "ray").wait(timeout=240) == 0
    run_sweep(root, 4, study="local")
    assert outcome(root, "on-ray") == outcome(root, "local")


@slow
def test_a_killed_ray_worker_loses_no_trial(root, ray_cluster):
    sweep = begin(root, "killed", 6, "--workers", "2", "--engine", "ray")
    deadline, killed = time.monotonic() + 120, None
    while killed is None:
        assert time.monotonic() < deadline and sweep.poll() is None
        time.sleep(0.1)
        killed = next(iter(workers_at_a_trial()), None)
    os.kill(killed, signal.SIGKILL)
    assert sweep.wait(timeout=240) == 0
    trials = trials_of(root, "killed")
    states = [t.state.name for t in trials]
    assert states.count("COMPLETE") == 6 and not {"RUNNING", "WAITING"} & {*states}


@slow
def test_a_dead_ray_node_loses_no_trial(root, ray_cluster):
    """One of two nodes goes, and with it the trial that it ran; the other one goes on."""
    sweep = begin(root, "dead-node", 4, "--workers", "2", "--engine", "ray")
    deadline = time.monotonic() + 120
    while len(workers_at_a_trial()) < 2:
        assert time.monotonic() < deadline and sweep.poll() is None
        time.sleep(0.1)
    ray_cluster.remove_node(ray_cluster.list_all_nodes()[-1], allow_graceful=False)
    assert sweep.wait(timeout=240) == 0
    states = [t.state.name for t in trials_of(root, "dead-node")]
    assert states.count("COMPLETE") == 4 and not {"RUNNING", "WAITING"} & {*states}


def workers_at_a_trial():
    """Process ids of Ray's workers that have begun the function of a trial."""
    found = subprocess.run(["pgrep", "-f", "^ray::_try_one"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_a_trial_on_ray_has_the_keys_of_the_command_while_it_runs(monkeypatch):
    seen = []
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(ray_engine, "watchdog", lambda sweep: None)
    monkeypatch.setattr(ray_engine, "try_one", lambda *_, **__: seen.append(os.environ["OPENAI_API_KEY"]) or 7)
    sweep = SimpleNamespace(open=lambda: None, root=ROOT)
    assert ray_engine._try_one(sweep, 3, Secrets({"OPENAI_API_KEY": "zorgon"})) == 7
    assert seen == ["zorgon"] and "OPENAI_API_KEY" not in os.environ


def test_an_unknown_engine_and_resources_without_one_are_told(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, tmp_path, "--engine", "rya") == 2
    assert "--engine 'rya' is not known. Allowed: local, ray." in capsys.readouterr().err
    assert main(monkeypatch, tmp_path, "--gpus-per-trial", "0.5") == 2
    assert "are for --engine ray" in capsys.readouterr().err
