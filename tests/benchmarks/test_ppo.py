"""benchmarks.ppo: its arithmetic with made-up runs, its case, our child on a toy; TRL's side behind markers."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from benchmarks.cases import falcon, neox
from benchmarks.ppo import environment, formulas, ours, pairs, resident, scale
from benchmarks.ppo.case import (
    BOT,
    EOS,
    PAD,
    TOY,
    build_model,
    build_tokenizer,
    prompts_of,
    reward_of_text,
    write_case,
)
from detoxlens.common.errors import UserError


def run(side, seed, speed, memory, reached):
    return pairs.Run(
        side=side,
        seed=seed,
        episodes_per_second=speed,
        cpu_seconds_per_step=1.0,
        memory_above_model_mib=memory,
        rewards=[0.1, reached],
        reward_reached=reached,
    )


PAIRS = [
    (run("ours", 0, 20.0, 50.0, 0.5), run("TRL", 0, 8.0, 100.0, 0.4)),  # 2.5 times as fast, .5 of the memory, +.1
    (run("ours", 1, 18.0, 70.0, 0.3), run("TRL", 1, 10.0, 100.0, 0.6)),  # 1.8, .7, -.3
    (run("ours", 2, 24.0, 55.0, 0.5), run("TRL", 2, 8.0, 100.0, 0.2)),  # 3.0, .55, +.3
]


def test_a_run_by_hand():
    # 3 steps of 32 episodes that ended at 1, 3 and 5 s: 2 * 32 / 4; a peak of 300 MiB over 100 before and 50 of weights
    mib = 2**20
    result = {
        "step_ended": [1.0, 3.0, 5.0],
        "cpu_seconds": [2.0, 5.0, 8.0],
        "rewards": [0.0] * 5 + [1.0] * 5,
        "peak": 300 * mib,
        "resident_before": 100 * mib,
    }
    found = pairs.run_of("ours", 7, result, 50 * mib, 32)
    assert found.cpu_seconds_per_step == 3.0
    assert (found.episodes_per_second, found.memory_above_model_mib, found.reward_reached) == (16.0, 150.0, 1.0)


def test_speed_and_memory_are_medians_of_ratios_and_the_reward_a_mean_difference():
    speed, memory, reward = pairs.judge(PAIRS)
    assert (speed.value, speed.range, speed.met) == (2.5, (1.8, 3.0), True)
    assert (memory.value, memory.range, memory.met) == (0.55, (0.5, 0.7), True)
    assert reward.value == pytest.approx(0.1 / 3) and reward.met
    assert reward.range == pytest.approx((-0.3, 0.3))


def test_a_missed_target_is_a_missed_target():
    speed, memory, reward = pairs.judge(PAIRS[1:2])
    assert not speed.met and not memory.met and not reward.met
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(pairs.table_of([speed, memory, reward], PAIRS[1:2]))
    text = console.export_text(styles=True)
    assert "\x1b[31m1.80" in text and "\x1b[31m0.70" in text and "\x1b[31m-0.300" in text and "…" not in text


def test_a_seed_counts_once_for_the_reward_however_often_it_is_repeated():
    assert pairs.judge([*PAIRS, PAIRS[0], PAIRS[0]])[2].value == pytest.approx(0.1 / 3)


def test_pairs_take_turns_at_being_first():
    asked = []

    def run_one(side, seed):
        asked.append((side, seed))
        return run(side, seed, 1.0, 1.0, 1.0)

    found = pairs.run_pairs(run_one, num_repetitions=2, num_seeds=2)
    assert asked == [("ours", 0), ("TRL", 0), ("TRL", 1), ("ours", 1), ("ours", 0), ("TRL", 0), ("TRL", 1), ("ours", 1)]
    assert [(o.side, t.side, o.seed) for o, t in found] == [("ours", "TRL", s) for s in (0, 1, 0, 1)]


def test_words_are_rewarded_by_their_number():
    assert reward_of_text("w8 w9 w16 w3", 8) == 0.5
    assert reward_of_text("", 8) == reward_of_text("<bot>", 8) == 0.0


def test_text_and_token_ids_say_the_same_and_padding_is_never_sampled():
    tokenizer = build_tokenizer(TOY.vocab)
    assert tokenizer.decode([5, 8, EOS], skip_special_tokens=True) == "w5 w8"
    prompts = prompts_of(TOY)
    assert all(p[-1] == BOT and BOT not in p[:-1] and min(p) > PAD for p in prompts)
    assert {len(p) for p in prompts} <= set(range(TOY.shortest_prompt, TOY.longest_prompt + 1))
    logits = build_model(TOY)(torch.tensor([prompts[0]])).logits
    torch.testing.assert_close(logits[..., PAD], torch.full_like(logits[..., PAD], -20.0))


def test_one_run_of_ours_on_a_toy(tmp_path):
    write_case(tmp_path, dataclasses.replace(TOY, num_steps=2))
    found = ours.train(tmp_path, seed=0)
    assert len(found["rewards"]) == 2 and found["step_ended"][0] < found["step_ended"][1]
    assert all(0 <= r <= 1 for r in found["rewards"])


def test_the_peak_is_of_what_came_after_it_was_forgotten():
    big = torch.zeros(64 * 2**20 // 4)
    big += 1
    del big
    before = resident.forget_peak()
    again = torch.zeros(32 * 2**20 // 4)
    again += 1
    grown = resident.peak() - before
    assert 0 <= grown < 60 * 2**20


def test_without_an_index_the_error_says_what_is_missing_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(UserError, match=r"Could not install TRL 1\.12\.0 .*nothing was measured"):
        environment.environment_with_trl(tmp_path / "state" / "trl")
    assert not (tmp_path / "state" / "trl").exists() and not list((tmp_path / "state").glob("*.partial"))


def test_an_environment_that_is_there_is_used_again(tmp_path, monkeypatch):
    (tmp_path / "trl-1.12.0.dist-info").mkdir(parents=True)
    (tmp_path / "trl-1.12.0.dist-info" / "RECORD").touch()
    monkeypatch.setattr(environment.subprocess, "run", None)  # not called
    assert environment.environment_with_trl(tmp_path)["PYTHONPATH"] == str(tmp_path)


def test_a_run_that_fails_is_an_error_with_its_last_words(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nMemoryError: no more tea")
    monkeypatch.setattr(pairs.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"The run of TRL with seed 3 failed: .*no more tea"):
        pairs.child("TRL", tmp_path, 3, 1, {})


def test_a_wrong_formula_shows_in_the_difference():
    given = formulas.random_tensors(batch=3, time=4)
    found = formulas.ours(given)
    mask = given["mask"].bool()
    assert max(formulas.max_abs_differences(found, found, mask).values()) == 0
    for name in found:
        wrong = found | {name: found[name] + 0.5 * (mask if found[name].shape == mask.shape else 1)}
        assert formulas.max_abs_differences(found, wrong, mask)[name] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "build",
    [lambda: neox(16, 1, 2, 32, 32, dtype=torch.bfloat16), lambda: falcon(16, 1, 2, 32, dtype=torch.bfloat16)],
)
def test_the_gpu_measurement_at_a_toy_shape(build):
    shape = scale.ScaleCase(
        name="toy",
        build=build,
        vocab=32,
        targets=("query_key_value",),
        minibatch_size=4,
        top_k=10,
        top_p=0.8,
        temperature=0.7,
        num_responses=8,
        num_prompt_tokens=5,
        num_new_tokens=6,
        lora_r=2,
    )
    found = scale.measure_shape(shape, device="cpu", num_steps=2)
    assert found.generation_seconds > 0 and found.update_seconds > 0 and found.peak_memory_gib is None
    total = found.generation_seconds + found.update_seconds
    assert found.speedup_over_authors == pytest.approx(scale.AUTHORS_SECONDS / total)
    console = Console(width=80, file=io.StringIO())
    console.print(scale.scale_table([found]))
    assert "toy" in console.file.getvalue()


@pytest.mark.slow
@pytest.mark.network
def test_formulas_equal_trls(tmp_path):
    trl = environment.environment_with_trl(tmp_path / "trl")
    given = formulas.random_tensors()
    found = formulas.max_abs_differences(
        formulas.ours(given), formulas.trls(given, tmp_path, trl), given["mask"].bool()
    )
    assert len(found) == 11 and max(found.values()) <= formulas.TOLERANCE, found


@pytest.mark.slow
@pytest.mark.network
def test_the_command_on_a_toy_against_trl_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pairs, "Settings", lambda num_steps: dataclasses.replace(TOY, num_steps=num_steps))
    pairs.bench_ppo(tmp_path, num_repetitions=1, num_seeds=1, num_steps=3, num_threads=1)
    assert "no GPU was found" in capsys.readouterr().out
    written = json.loads((tmp_path / "benchmarks/results/ppo.json").read_text(encoding="utf-8"))
    assert [r["side"] for r in written["runs"]] == ["ours", "TRL"] and written["formulas"]["met"]
    assert [len(r["rewards"]) for r in written["runs"]] == [3, 3]


@pytest.mark.slow
@pytest.mark.network
def test_both_rewards_give_the_same_number(tmp_path):
    """TRL's module on token ids (left padded) and our function on the decoded text."""
    trl = environment.environment_with_trl(tmp_path / "trl")
    rows = [[PAD, 5, BOT, 4, 9, BOT, 8], [4, 8, BOT, 4, 8, 12, 5], [PAD, PAD, BOT, 7, EOS, PAD, PAD]]
    code = (
        "import json, sys, torch; sys.path.insert(0, sys.argv[1]); from trl_child import WordReward;"
        "from trl.experimental.utils import get_reward;"
        "print(json.dumps(get_reward(WordReward(4), torch.tensor(json.loads(sys.argv[2])), 1, 3)[1].tolist()))"
    )
    command_line = [sys.executable, "-c", code, str(formulas.CHILD.parent), json.dumps(rows)]
    done = subprocess.run(command_line, env=trl, capture_output=True, text=True, check=True)
    tokenizer = build_tokenizer(16)
    texts = [tokenizer.decode(row[3:], skip_special_tokens=True) for row in rows]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx([reward_of_text(t, 4) for t in texts])
