"""Killed anywhere and started again, PPO ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.jobs import save_timer
from detoxlens.rl import checkpoint
from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.ppo import PPO


class Killed(BaseException):
    """Not an Exception, so that nothing on the way handles it: as close to a kill as one process gets."""


def noisy_reward(texts):
    """Draws from every global generator, as a user's reward function may."""
    return [random.random() + np.random.rand() + torch.rand(()).item() for _ in texts]


@pytest.fixture
def run(make_policy, tokenizer, make_config, make_decoding, prompts, tmp_path):
    def run(folder=None, *, on_step=None, reward=noisy_reward, **changes):
        policy = make_policy()
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        settings = {"kl": {"control": "adaptive"}, "whiten_rewards": True} | changes
        ppo = PPO(
            policy,
            tokenizer,
            reward,
            config=make_config(**settings),
            decoding=make_decoding(),
            seed=0,
            selector=lambda texts: [len(t) / 10 for t in texts],
        )
        result = ppo.train(
            prompts, validation_prompts=prompts[:4], checkpoint_folder=folder and tmp_path / folder, on_step=on_step
        )
        return {n: t.numpy().tobytes() for n, t in adapter_state(policy).items()}, result

    return run


def kill_at(step):
    def on_step(row):
        if row["step"] == step:
            raise Killed

    return on_step


def test_steps_that_take_long_are_saved_by_time_too(run, tmp_path, monkeypatch):
    whole, expected = run(checkpoint_every=100)
    monkeypatch.setattr(save_timer, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        run("c", on_step=kill_at(3), checkpoint_every=100)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["checkpoint-000003"]
    resumed, result = run("c", checkpoint_every=100)
    assert resumed == whole and json.dumps(result.history) == json.dumps(expected.history)


@pytest.mark.parametrize("step", [0, 1, 3, 4])
def test_resumed_run_equals_an_uninterrupted_one(run, step):
    whole, expected = run()
    with pytest.raises(Killed):
        run("c", on_step=kill_at(step))
    resumed, result = run("c")
    assert resumed == whole
    assert result == expected


def test_a_kill_while_a_checkpoint_is_written_costs_only_that_checkpoint(run, monkeypatch, tmp_path):
    whole, expected = run()
    save, calls = torch.save, []

    def torn(*args):
        calls.append(1)
        if len(calls) == 3:
            args[1].write_bytes(b"half a file")
            raise Killed
        save(*args)

    monkeypatch.setattr(checkpoint.torch, "save", torn)
    with pytest.raises(Killed):
        run("c")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["checkpoint-000002", "partial-000003"]
    resumed, result = run("c")
    assert resumed == whole and result == expected
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["checkpoint-000004"]


def test_a_finished_run_is_read_back_without_work(run):
    first, result = run("c")
    again, result_again = run("c", on_step=kill_at(4))
    assert again == first and result_again == result


def test_a_checkpoint_of_other_settings_is_refused(run):
    run("c")
    with pytest.raises(UserError, match="checkpoint-000004 belongs to a PPO run with other settings"):
        run("c", num_steps=5)


def test_an_error_in_mid_run_keeps_the_last_checkpoint(run, tmp_path):
    with pytest.raises(UserError, match="left the base model"):
        run("c", learning_rate=1.0, num_steps=10, kl={"coef": 0.0, "explosion_nats_per_sequence": 0.5})
    assert list((tmp_path / "c").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: [float("nan")] * len(texts), r"ppo step 3: the reward of the response '.*' is nan"),
        (lambda texts: [float("-inf")] * len(texts), r"ppo step 3: the reward of the response '.*' is -inf"),
        (lambda texts: [1.0], r"ppo step 3: the reward function returned 1 rewards for \d texts, the first '"),
        (lambda texts: 1 / 0, r"ppo step 3: the reward function raised ZeroDivisionError.* for the response '"),
    ],
)
def test_a_reward_that_breaks_in_mid_run_names_step_and_text_and_the_run_goes_on_once_it_is_repaired(
    run, tmp_path, answer, message
):
    whole, expected = run()
    num_calls = 0

    def breaks(texts):
        nonlocal num_calls
        num_calls += 1
        return answer(texts) if num_calls > 2 else noisy_reward(texts)

    with pytest.raises(UserError, match=message):
        run("c", reward=breaks)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["checkpoint-000002"]
    repaired, result = run("c")
    assert repaired == whole and result == expected


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path({conftest!r}).parent))
import conftest as c
from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.ppo import PPO
from safetensors.torch import save_file
unwrap = lambda f: f.__wrapped__() if hasattr(f, "__wrapped__") else f._get_wrapped_function()()
tokenizer, policy = unwrap(c.tokenizer), unwrap(c.make_policy)()
prompts = [tokenizer(t).input_ids for t in ["a", "bc", "def", "ghij"] * 3]
ppo = PPO(policy, tokenizer, lambda texts: [float(len(t)) for t in texts], seed=0,
          config=unwrap(c.make_config)(num_steps=12), decoding=unwrap(c.make_decoding)())
def on_step(row):
    print(row["step"], flush=True)
    time.sleep(0.05)
ppo.train(prompts, checkpoint_folder=Path(sys.argv[1]), on_step=on_step)
save_file(adapter_state(policy), sys.argv[2])
"""


@pytest.mark.slow
def test_sigkill_then_rerun_gives_the_same_file(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(conftest=str(Path(__file__).with_name("conftest.py"))))

    def command(folder, out):
        return [sys.executable, str(script), str(tmp_path / folder), str(tmp_path / out)]

    subprocess.run(command("a", "a.safetensors"), check=True, stdout=subprocess.DEVNULL)
    for kill_after in (2, 3):
        process = subprocess.Popen(command("b", "b.safetensors"), stdout=subprocess.PIPE, text=True)
        for _ in range(kill_after):
            process.stdout.readline()
        time.sleep(0.06)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "b.safetensors").exists()
    subprocess.run(command("b", "b.safetensors"), check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
