"""RLOO and GRPO through TRL: they learn from the same rewards, keep the same history, and survive a kill."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.params.ppo import KlConfig, PpoConfig, ValidationConfig
from detoxlens.params.unread import UNREAD
from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.groups import GroupTrainer


def share_of_low_letters(texts):
    """Share of characters below 'a': something a random policy can learn within a few steps."""
    return [sum(c < "a" for c in t) / len(t) for t in texts]


def noisy(texts):
    """Draws from every global generator, as a user's reward function may."""
    return [random.random() + np.random.rand() + torch.rand(()).item() for _ in texts]


@pytest.fixture
def train(make_policy, tokenizer, make_config, make_decoding, prompts, tmp_path):
    def run(
        algorithm,
        *,
        folder="c",
        reward=share_of_low_letters,
        selector=None,
        on_step=None,
        scale=1.0,
        policy=None,
        decoding=None,
        **changes,
    ):
        policy = policy or make_policy(("query_key_value", "dense"))
        policy.get_output_embeddings().weight.data.mul_(scale)  # an adapter below a random head moves little
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        trainer = GroupTrainer(
            policy,
            tokenizer,
            reward,
            algorithm=algorithm,
            config=make_config(**changes),
            seed=0,
            selector=selector,
            decoding=make_decoding(**decoding or {}),
            grader=lambda texts: [0.5] * len(texts),
        )
        result = trainer.train(
            prompts,
            validation_prompts=prompts[:4] if selector else (),
            checkpoint_folder=tmp_path / folder,
            on_step=on_step,
        )
        return policy, result

    return run


def same(one, two):
    return all(one[n].equal(two[n]) for n in one)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_reward_rises_and_the_history_has_ppos_names(train, algorithm):
    policy, result = train(
        algorithm,
        num_steps=10,
        rollout_batch_size=32,
        minibatch_size=16,
        micro_batch_size=16,
        kl={"coef": 0.0},
        scale=20,
    )
    rewards = [row["ppo/reward"] for row in result.history]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert [row["step"] for row in result.history] == list(range(1, 11))
    assert {
        "ppo/kl_nats_per_sequence",
        "ppo/independent_toxicity",
        "ppo/response_length_tokens",
        "ppo/distinct_2",
        "ppo/base_perplexity",
        "ppo/learning_rate",
        f"{algorithm}/loss",
    } <= set(result.history[-1])
    assert result.history[0]["ppo/kl_nats_per_sequence"] == pytest.approx(0, abs=1e-6)
    assert result.kept_step == 10 and result.stop_reason is None
    assert list(policy.peft_config) == ["default"] and "forward" not in policy.get_base_model().__dict__


class Killed(BaseException):
    """Not an Exception, so that nothing on the way handles it: as close to a kill as one process gets."""


@pytest.mark.parametrize(("algorithm", "step"), [("rloo", 1), pytest.param("grpo", 3, marks=pytest.mark.slow)])
def test_killed_and_run_again_it_ends_with_the_bytes_of_an_uninterrupted_run(train, algorithm, step):
    settings = {"reward": noisy, "selector": lambda texts: [len(t) / 10 for t in texts], "whiten_advantages": False}
    whole, expected = train(algorithm, **settings)

    def kill(row):
        if row["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        train(algorithm, folder="k", on_step=kill, **settings)
    resumed, result = train(algorithm, folder="k", **settings)
    assert result == expected and json.dumps(result.history) == json.dumps(expected.history)
    assert same(adapter_state(resumed), adapter_state(whole))
    again, result = train(algorithm, folder="k", on_step=kill, **settings)  # finished: read back without work
    assert result == expected and same(adapter_state(again), adapter_state(whole))
    with pytest.raises(UserError, match="belongs to a PPO run with other settings"):
        train(algorithm, folder="k", lam=0.5, **settings)


@pytest.mark.slow
def test_a_torn_checkpoint_is_passed_over(train, tmp_path):
    whole, expected = train("rloo")
    with pytest.raises(Killed):
        train("rloo", folder="k", on_step=lambda row: (_ for _ in ()).throw(Killed) if row["step"] == 3 else None)
    (newest,) = (tmp_path / "k").glob("checkpoint-*")
    torn = newest.with_name("checkpoint-999")
    newest.rename(torn)
    (torn / "trainer_state.json").write_text('{"glob')
    resumed, result = train("rloo", folder="k")  # nothing whole is left: from the start
    assert result == expected and same(adapter_state(resumed), adapter_state(whole)) and not torn.exists()


def test_the_best_validated_adapter_is_kept(train):
    verdicts = iter([0.1, 0.2, 0.3])
    policy, result = train("rloo", selector=lambda texts: [v := next(verdicts)] + [v] * (len(texts) - 1))
    assert result.kept_step == 0
    assert all((p == 0).all() for n, p in policy.named_parameters() if "lora_B" in n)


def test_the_reference_is_the_base_model_also_when_training_starts_from_an_adapter(train, make_policy):
    policy = make_policy(("query_key_value", "dense"))
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_" in name:
                p.normal_(std=0.3)
    _, result = train("grpo", num_steps=1, policy=policy, scale=20)
    assert result.history[0]["ppo/kl_nats_per_sequence"] > 0.1


def test_training_ends_after_the_step_that_exceeds_a_budget(train):
    _, result = train("grpo", stop_base_perplexity=1.5)
    assert len(result.history) == 1 and "perplexity" in result.stop_reason


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda texts: [float("nan")] * len(texts), r"ppo step 1: the reward of the response '.*' is nan"),
        (lambda texts: [1.0], r"ppo step 1: the reward function returned 1 rewards for"),
        (lambda texts: 1 / 0, r"ppo step 1: the reward function raised ZeroDivisionError"),
    ],
)
def test_a_misbehaving_reward_function_is_told_in_ppos_words(train, reward, message):
    with pytest.raises(UserError, match=message):
        train("rloo", reward=reward)


def test_a_kl_explosion_is_told_in_ppos_words(train):
    with pytest.raises(UserError, match=r"ppo step \d+: the policy has left the base model.*in the response '"):
        train("grpo", learning_rate=0.1, scale=20, kl={"coef": 0.0, "explosion_nats_per_sequence": 0.01})


def test_what_trl_cannot_do_is_refused_before_work(train, make_policy):
    with pytest.raises(UserError, match=r"rloo: lora.target_modules has the output layer"):
        train("rloo", policy=make_policy(("lm_head",)))
    with pytest.raises(UserError, match=r"ppo.num_generations=3 must divide ppo.rollout_batch_size=8.*try 2"):
        train("rloo", num_generations=3)
    with pytest.raises(UserError, match=r"ppo.micro_batch_size=3 must divide ppo.minibatch_size=4.*try 2"):
        train("rloo", micro_batch_size=3)
    with pytest.raises(UserError, match="temperature=0"):
        train("rloo", decoding={"temperature": 0})
    with pytest.raises(UserError, match=r"rloo has 12 prompts, fewer than one batch"):
        train("rloo", rollout_batch_size=64, minibatch_size=4)


def test_truncated_decoding_reaches_trl(train):
    """One token to choose from: the four responses to a prompt are equal, and none ends before its third token."""
    seen = []
    train(
        "rloo",
        num_steps=1,
        reward=lambda texts: seen.extend(texts) or [0.0] * len(texts),
        scale=20,
        decoding={"top_k": 1, "min_new_tokens": 3, "max_new_tokens": 4},
    )
    assert len(seen) == 8 and len(set(seen[:4])) == len(set(seen[4:])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_bfloat16_weights_train_a_float32_adapter(train, make_policy, gradient_checkpointing):
    policy = make_policy(("query_key_value",)).to(torch.bfloat16)
    for p in policy.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    _, result = train("rloo", policy=policy, num_steps=2, gradient_checkpointing=gradient_checkpointing)
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in result.history)
    assert {p.dtype for p in policy.parameters() if p.requires_grad} == {torch.float32}


OTHERWISE = {
    "value_learning_rate": 0.5,
    "value_clip_range": 0.9,
    "value_coef": 3.0,
    "value_function": "lora",
    "value_gradient_to_backbone": False,
    "gamma": 0.5,
    "lam": 0.1,
    "whiten_rewards": True,
    "entropy_coef": 0.5,
    "whiten_advantages": False,
    "kl": {"control": "adaptive", "target_nats_per_sequence": 0.1, "horizon": 10, "estimator": "k3"},
    "regularizer": {
        "kind": "toxic_share",
        "weight": 9.0,
        "columns": "shuffled",
        "num_examples": 3,
        "num_positions": 2,
        "scorer": "hf:owner/name",
    },
}


@pytest.mark.parametrize("algorithm", ["rloo", pytest.param("grpo", marks=pytest.mark.slow)])
def test_a_param_that_is_called_unread_changes_no_byte_and_one_that_is_not_is_read(
    algorithm, train, make_policy, monkeypatch
):
    listed = {name.removeprefix("ppo.") for name in UNREAD[algorithm]} - {"lora.dropout"}
    nested = ("kl", "regularizer")
    changes = {name: value for name, value in OTHERWISE.items() if name in listed or name in nested}
    assert listed == {*changes, *(f"{outer}.{name}" for outer in nested for name in OTHERWISE[outer])} - {*nested}
    read = set()
    for cls, prefix in ((PpoConfig, ""), (KlConfig, "kl."), (ValidationConfig, "validation.")):
        note_reads(monkeypatch, cls, prefix, read)
    plain, expected = train(algorithm, num_steps=2, selector=lambda texts: [0.5] * len(texts))
    everything = {n for n in PpoConfig.model_fields if n not in (*nested, "validation")}
    everything |= {f"kl.{n}" for n in KlConfig.model_fields} | {
        f"validation.{n}" for n in ValidationConfig.model_fields
    }
    by_the_stage = {
        "reward_scale",
        "max_context_turns",
        "max_prompt_tokens",
        "validation.num_prompts",
        "validation.filter",
    }
    assert everything - by_the_stage - read <= listed
    policy = make_policy(("query_key_value", "dense"))
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    changed, result = train(
        algorithm, num_steps=2, selector=lambda texts: [0.5] * len(texts), policy=policy, folder="d", **changes
    )
    assert result == expected and same(adapter_state(changed), adapter_state(plain))


def note_reads(monkeypatch, cls, prefix, read):
    """Adds the name of each field of `cls` that is read from now on."""
    plain = cls.__getattribute__

    def noting(self, name):
        if name in cls.model_fields:
            read.add(f"{prefix}{name}")
        return plain(self, name)

    monkeypatch.setattr(cls, "__getattribute__", noting)
