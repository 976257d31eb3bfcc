"""PPO in two CPU processes: the numbers of one process, one checkpoint, and an end for all when one ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from detoxlens.common.errors import UserError
from detoxlens.rl.world import World, join

CONFIG = {"num_steps": 3, "learning_rate": 1e-3, "rollout_batch_size": 7, "minibatch_size": 7, "micro_batch_size": 2}


def test_one_process_needs_no_launcher():
    with join({}, device="cpu") as world:
        assert world == World() and world.is_main
        assert world.share([1, 2, 3]) == [1, 2, 3] and world.sum_of([1.5]) == [1.5]
        assert world.from_main(lambda: 0.1) == 0.1


def test_shares_cover_everything_once():
    shares = [World(rank=r, size=3).share(range(8)) for r in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharded_launchers_are_refused(name):
    environ = {"WORLD_SIZE": "2", "RANK": "0", f"ACCELERATE_USE_{name}": "true"}
    with pytest.raises(UserError, match=f"configured for {name}.*whole copy"), join(environ, device="cpu"):
        pass


def test_a_half_set_up_launcher_is_named():
    with pytest.raises(UserError, match="WORLD_SIZE=2 is set but RANK is not"), join({"WORLD_SIZE": "2"}, device="cpu"):
        pass


def start(tmp_path: Path, size: int, name: str, *, folder: str | None = None, config=None, **settings):
    """Starts `size` processes; returns them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings |= {"folder": str(tmp_path / (folder or name)), "out": str(tmp_path / name)}
    settings["config"] = CONFIG | (config or {})
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(settings)]
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [
        subprocess.Popen(command, env=os.environ | launched | {"RANK": str(r)}, stderr=subprocess.PIPE, text=True)
        for r in range(size)
    ]


def finish(processes, *, within=180.0) -> list[tuple[int, str]]:
    """Exit code and standard error of each; a process that still runs after `within` seconds fails the test."""
    ended = time.monotonic() + within
    try:
        return [(p.wait(max(0.1, ended - time.monotonic())), p.stderr.read()) for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
            p.stderr.close()


def adapter(tmp_path, name, rank=0):
    return load_file(tmp_path / f"{name}.{rank}.safetensors")


def history(tmp_path, name, rank=0):
    return json.loads((tmp_path / f"{name}.{rank}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"whiten_rewards": True}, "decoding": {"top_k": 20, "top_p": 0.9, "batch_size": 2}},
        {"config": {"value_function": "lora", "value_coef": 1.0}, "selects": False},
    ],
)
def test_two_processes_compute_what_one_does(tmp_path, changes):
    for size, name in ((1, "one"), (2, "two")):
        assert [code for code, _ in finish(start(tmp_path, size, name, **changes))] == [0] * size
    one, two = adapter(tmp_path, "one"), adapter(tmp_path, "two")
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)  # sums in another order
    assert any(tensor.abs().max() > 1e-4 for key, tensor in one.items() if "lora_B" in key)  # it did train
    for expected, row in zip(history(tmp_path, "one"), history(tmp_path, "two"), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)
    other = adapter(tmp_path, "two", rank=1)
    assert all(other[key].equal(tensor) for key, tensor in two.items())
    assert history(tmp_path, "two", rank=1) == history(tmp_path, "two")
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["checkpoint-000003"]


@pytest.mark.slow
def test_sigkill_of_one_ends_the_other_which_says_so_and_both_resume_to_the_same_bytes(tmp_path):
    config = {"num_steps": 4}
    finish(start(tmp_path, 2, "whole", config=config))
    (_, said), (killed, _) = finish(start(tmp_path, 2, "cut", config=config, dies=["1", 2]))
    assert killed == -9
    assert "process 0 of 2 waited for the others, and one of them has ended" in said
    assert "the same command resumes from the last checkpoint" in said and "Traceback" not in said
    assert [p.name for p in (tmp_path / "cut").iterdir() if p.name.startswith("checkpoint")] == ["checkpoint-000002"]
    assert [code for code, _ in finish(start(tmp_path, 2, "cut", config=config))] == [0, 0]
    for rank in (0, 1):
        one, two = (tmp_path / f"{name}.{rank}.safetensors" for name in ("whole", "cut"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_given_up(tmp_path):
    processes = start(tmp_path, 2, "stuck", sleeps=["1", 1], timeout=8)
    try:
        assert processes[0].wait(150) == 2
        assert "does not answer" in processes[0].stderr.read()
    finally:
        for p in processes:
            p.kill()
            p.wait()
            p.stderr.close()


@pytest.mark.slow
def test_a_reward_that_raises_in_one_process_is_told_by_all(tmp_path):
    for code, said in finish(start(tmp_path, 2, "bad", raises="1")):
        assert code == 2
        assert "ppo step" in said and "the reward function raised KeyError: 'no tubas'" in said
