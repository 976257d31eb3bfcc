"""The same sweep on a local Ray cluster of two nodes, and what can be wrong with one."""

import os
import signal
import subprocess
import sys
import time

import pytest

from detoxlens.errors import UserError
from detoxlens.sweep import ray_engine
from detoxlens.sweep.ray_engine import Resources, _check_fits
from tests.sweep.project import begin, main, outcome, run_sweep, trials_of

slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each, beside a head that has none."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=nodes | {"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **nodes)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        cluster.shutdown()


@slow
def test_trials_on_ray_are_those_of_the_local_engine_byte_for_byte(root, cluster):
    assert begin(root, "on-ray", 4, "--workers", "2", "--engine", "ray").wait(timeout=240) == 0
    run_sweep(root, 4, study="local")
    assert outcome(root, "on-ray") == outcome(root, "local")


@slow
def test_a_killed_ray_worker_loses_no_trial(root, cluster):
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


def workers_at_a_trial():
    """Process ids of Ray's workers that have begun the function of a trial."""
    found = subprocess.run(["pgrep", "-f", "^ray::_try_one"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_resources_that_no_node_has_are_told():
    nodes = [{"CPU": 0.0}, {"CPU": 2.0}, {"CPU": 2.0}]
    with pytest.raises(UserError, match=r"--gpus-per-trial 0\.5: no node of the Ray cluster has more than 0 GPUs"):
        _check_fits(nodes, Resources(num_cpus=1, num_gpus=0.5))
    with pytest.raises(UserError, match=r"--cpus-per-trial 4: no node of the Ray cluster has more than 2 CPUs"):
        _check_fits(nodes, Resources(num_cpus=4, num_gpus=0))
    _check_fits([*nodes, {"CPU": 4.0, "GPU": 1.0}], Resources(num_cpus=1, num_gpus=0.5))


def test_without_ray_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"):
        ray_engine._ray()


def test_an_unknown_engine_and_resources_without_one_are_told(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, tmp_path, "--engine", "rya") == 2
    assert "--engine 'rya' is not known. Allowed: local, ray." in capsys.readouterr().err
    assert main(monkeypatch, tmp_path, "--gpus-per-trial", "0.5") == 2
    assert "are for --engine ray" in capsys.readouterr().err
