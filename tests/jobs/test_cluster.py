"""What a Ray cluster can be asked, what is said where it cannot, and keys that are given to a task alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from detoxlens import cli
from detoxlens.common.errors import UserError
from detoxlens.jobs import cluster
from detoxlens.jobs.cluster import Resources, Secrets, check_fits, num_at_once, secrets_of
from tests.root import ROOT

NODES = [{"CPU": 0.0}, {"CPU": 2.0}, {"CPU": 3.0, "GPU": 2.0}]


def test_as_many_run_at_once_as_the_nodes_hold():
    assert num_at_once(NODES, Resources(num_cpus=1, num_gpus=0)) == 0 + 2 + 3
    assert num_at_once(NODES, Resources(num_cpus=2, num_gpus=0)) == 0 + 1 + 1
    assert num_at_once(NODES, Resources(num_cpus=0.1, num_gpus=0.25)) == 8  # four on each of two GPUs
    assert num_at_once(NODES, Resources(num_cpus=1, num_gpus=0.5)) == 3  # the cores end first
    assert num_at_once([{"CPU": 0.3}], Resources(num_cpus=0.1, num_gpus=0)) == 3  # .3 / .1 is 2.9999999999999996


def test_resources_that_no_node_has_are_told():
    with pytest.raises(UserError, match=r"--gpus-per-trial 0\.5: no node of the Ray cluster has more than 0 GPUs"):
        check_fits(NODES[:2], Resources(num_cpus=1, num_gpus=0.5), "trial")
    with pytest.raises(UserError, match=r"--cpus-per-share 4: no node of the Ray cluster has more than 3 CPUs"):
        check_fits(NODES, Resources(num_cpus=4, num_gpus=0), "share")
    with pytest.raises(UserError, match=r"--cpus-per-share 4 and --gpus-per-share 1: no single node"):
        check_fits([{"CPU": 4.0}, *NODES], Resources(num_cpus=4, num_gpus=1), "share")
    check_fits(NODES, Resources(num_cpus=3, num_gpus=2), "share")


def test_without_ray_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"), cluster.cluster():
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nobody"])
def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))  # not asked for anything
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = address.format(port=taken.getsockname()[1])
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=f"RAY_ADDRESS={address}: no Ray cluster can be reached"), cluster.cluster():
            pass


def test_keys_are_set_for_a_task_alone_and_never_printed(monkeypatch):
    monkeypatch.setenv("A_KEY", "old")
    monkeypatch.delenv("B_KEY", raising=False)
    keys = secrets_of(
        {"A_KEY": "zorgon", "B_KEY": "hum", "C_KEY": "", "HF_TOKEN": "hf", "PATH": "x"}, ["A_KEY", "B_KEY"]
    )
    assert keys == Secrets({"A_KEY": "zorgon", "B_KEY": "hum", "HF_TOKEN": "hf"})
    assert repr(keys) == "Secrets(A_KEY, B_KEY, HF_TOKEN)"
    with keys.in_environment():
        assert (os.environ["A_KEY"], os.environ["B_KEY"]) == ("zorgon", "hum")
        if (listed := Path("/proc/self/environ")).exists():
            assert b"zorgon" not in listed.read_bytes()
    assert os.environ["A_KEY"] == "old" and "B_KEY" not in os.environ


def test_the_runtime_env_which_ray_shows_and_logs_holds_what_is_passed_on_and_no_key(monkeypatch):
    asked = {}
    fake = type(sys)("ray")
    fake.init, fake.shutdown = lambda **how: asked.update(how), lambda: None
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("OPENAI_API_KEY", "zorgon-key")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with cluster.cluster() as ray:
        assert ray is fake and Path(asked["_temp_dir"]).is_dir()
    assert asked["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3" and asked["address"] == "local"
    assert "zorgon-key" not in str(asked) and not Path(asked["_temp_dir"]).exists()


@pytest.mark.parametrize("stage", ["generate", "score", "attribute"])
@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (
            ["--engine", "rya"],
            {},
            "--engine 'rya' (or DETOXLENS_ENGINE) is not known. Did you mean 'ray'? Allowed: local",
        ),
        ([], {"DETOXLENS_ENGINE": "spark"}, "'spark' (or DETOXLENS_ENGINE) is not known. Allowed: local, ray."),
        (
            ["--shares", "2"],
            {},
            "are for --engine ray; without Ray each process is given its own part, e.g. --share 0/4.",
        ),
        (["--gpus-per-share", ".5"], {}, "are for --engine ray"),
        (["--share", "0/2", "--engine", "ray"], {}, "--share 0/2 and --engine ray: Ray gives out the shares itself"),
        (["--share", "0/2"], {"DETOXLENS_ENGINE": "ray"}, "or unset DETOXLENS_ENGINE."),
        (["--share", "2/2"], {}, "--share 2/2: give NUMBER/COUNT with a number from 0 to COUNT - 1"),
        (["--engine", "ray", "--shares", "0"], {}, "greater than or equal to 1"),
    ],
)
def test_options_that_make_no_sense_are_told(monkeypatch, capsys, stage, arguments, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = ["detoxlens", "--root", str(ROOT), "--no-track", stage, "--model", "tiny-neox", "--variant", "it"]
    monkeypatch.setattr(sys, "argv", [*command, *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_the_engine_costs_a_stage_nothing_unless_asked_for():
    code = (
        "import sys, detoxlens.pipeline.run_stage, detoxlens.cli.stages; "
        "print(sorted({'ray', 'detoxlens.pipeline.on_ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
