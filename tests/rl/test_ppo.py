"""The loop as a whole: it learns, its guards act, the best adapter is kept, no knob of memory changes the numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.rl import ppo as ppo_module
from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.learner import schedule
from detoxlens.rl.ppo import PPO
from detoxlens.rl.rollout import sample_responses

METRICS = {
    "reward",
    "kl_nats_per_token",
    "kl_nats_per_sequence",
    "policy_entropy_nats",
    "clip_fraction",
    "value_loss",
    "policy_loss",
    "explained_variance",
    "response_length_tokens",
    "independent_toxicity",
    "distinct_1",
    "distinct_2",
    "base_perplexity",
    "kl_coef",
    "learning_rate",
    "grad_norm",
    "eos_share",
    "empty_share",
}


def share_of_low_letters(texts):
    """Share of characters below 'a': something a random policy can learn within a few steps."""
    return [sum(c < "a" for c in t) / len(t) for t in texts]


def no_toxicity(texts):
    return [0.0] * len(texts)


@pytest.fixture
def train(make_policy, tokenizer, make_config, make_decoding, prompts):
    """Trains a fresh policy; returns it and the result."""

    def run(
        *, decoding=None, grader=None, selector=None, seed=0, with_policy=None, reward=share_of_low_letters, **changes
    ):
        policy = with_policy or make_policy()
        ppo = PPO(
            policy,
            tokenizer,
            reward,
            config=make_config(**changes),
            decoding=make_decoding(**decoding or {}),
            seed=seed,
            grader=grader,
            selector=selector,
        )
        return policy, ppo.train(prompts, validation_prompts=prompts[:4] if selector else ())

    return run


def test_reward_rises_and_every_metric_is_logged_at_every_step(train):
    _, result = train(num_steps=15, grader=no_toxicity, kl={"coef": 0.0})
    rewards = [row["ppo/reward"] for row in result.history]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    assert [row["step"] for row in result.history] == list(range(1, 16))
    for row in result.history:
        assert {f"ppo/{m}" for m in METRICS} <= set(row)
        assert all(isinstance(v, float | int) for v in row.values())
    assert result.kept_step == 15 and result.stop_reason is None


def test_first_step_starts_from_the_base_model(train):
    _, result = train(num_steps=1)
    assert result.history[0]["ppo/kl_nats_per_sequence"] == 0


def test_only_the_adapter_is_trained(train, make_policy):
    before = {n: p.detach().clone() for n, p in make_policy().named_parameters()}
    policy, _ = train(num_steps=2)
    for name, p in policy.named_parameters():
        assert p.equal(before[name]) == (not p.requires_grad), name


def test_a_strong_penalty_keeps_the_policy_closer(train):
    free = train(num_steps=10, kl={"coef": 0.0})[1].history[-1]["ppo/kl_nats_per_sequence"]
    held = train(num_steps=10, kl={"coef": 1.0})[1].history[-1]["ppo/kl_nats_per_sequence"]
    assert held < free / 2


@pytest.mark.parametrize("changes", [{"micro_batch_size": 4}, {"gradient_checkpointing": True}])
def test_saving_memory_changes_nothing_but_rounding(train, changes):
    plain, _ = train(num_steps=2, learning_rate=1e-3)
    frugal, _ = train(num_steps=2, learning_rate=1e-3, **changes)
    for name, tensor in adapter_state(plain).items():
        torch.testing.assert_close(adapter_state(frugal)[name], tensor, rtol=1e-3, atol=1e-5)


def test_same_seed_same_bytes_other_seed_other_bytes(train):
    first, again, other = (adapter_state(train(num_steps=2, seed=s)[0]) for s in (0, 0, 1))
    assert all(first[n].equal(again[n]) for n in first)
    assert not all(first[n].equal(other[n]) for n in first)


def test_adaptive_coefficient_falls_while_kl_is_below_target(train):
    _, result = train(
        num_steps=2, kl={"coef": 0.2, "control": "adaptive", "target_nats_per_sequence": 6, "horizon": 100}
    )
    # KL 0 at step 1: .2 * (1 - .2 * 8 / 100)
    assert [row["ppo/kl_coef"] for row in result.history] == pytest.approx([0.2, 0.2 * (1 - 0.016)])


@pytest.mark.parametrize("options", [{"whiten_rewards": True}, {"entropy_coef": 0.01}, {"kl": {"estimator": "k3"}}])
@pytest.mark.parametrize("decoding", [{}, {"temperature": 0.7, "top_k": 10, "top_p": 0.9, "no_repeat_ngram_size": 2}])
def test_options_run(train, options, decoding):
    _, result = train(num_steps=2, decoding=decoding, **options)
    assert len(result.history) == 2


def test_the_best_validated_adapter_is_kept_not_the_last(train):
    """A selector that finds the adapter worse and worse keeps the one that training started from."""
    verdicts = iter([0.1, 0.2, 0.3])
    policy, result = train(num_steps=4, selector=lambda texts: [v := next(verdicts)] + [v] * (len(texts) - 1))
    assert result.kept_step == 0
    assert all((p == 0).all() for n, p in policy.named_parameters() if "lora_B" in n)
    assert [row["ppo/val_toxicity"] for row in result.history if "ppo/val_toxicity" in row] == pytest.approx(
        [0.1, 0.2, 0.3]
    )


def test_a_less_toxic_adapter_beyond_the_kl_budget_is_not_kept(train):
    verdicts = iter([0.9, 0.5, 0.0])
    _, result = train(
        num_steps=4,
        kl={"coef": 0.0, "budget_nats_per_sequence": 1e-6},
        selector=lambda texts: [v := next(verdicts)] + [v] * (len(texts) - 1),
    )
    assert result.kept_step == 0


def test_training_stops_in_good_order_when_a_budget_is_spent(train):
    _, result = train(num_steps=10, kl={"coef": 0.0, "stop_nats_per_sequence": 0.01})
    assert len(result.history) < 10
    assert "KL" in result.stop_reason and "ppo.kl.stop_nats_per_sequence=0.01" in result.stop_reason
    _, result = train(num_steps=10, stop_base_perplexity=1.5)
    assert "perplexity" in result.stop_reason and len(result.history) == 1


def test_kl_explosion_is_an_error_with_step_and_text(train):
    with pytest.raises(UserError, match=r"ppo step \d+: the policy has left the base model.*in the response '"):
        train(num_steps=10, kl={"coef": 0.0, "explosion_nats_per_sequence": 0.01})


def test_weights_that_are_no_numbers_are_an_error(train, make_policy):
    policy = make_policy()
    next(p for p in policy.parameters() if p.requires_grad).data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        train(with_policy=policy)


def test_fewer_prompts_than_a_batch_is_an_error(make_policy, tokenizer, make_config, make_decoding, prompts):
    ppo = PPO(make_policy(), tokenizer, share_of_low_letters, config=make_config(), decoding=make_decoding(), seed=0)
    with pytest.raises(UserError, match=r"3 prompts, fewer than one batch .*rollout_batch_size=8"):
        ppo.train(prompts[:3])


def test_a_model_without_adapter_and_greedy_decoding_are_errors(make_policy, tokenizer, make_config, make_decoding):
    policy = make_policy()
    with pytest.raises(UserError, match="LoRA adapter and got GPTNeoXForCausalLM"):
        PPO(policy.get_base_model(), tokenizer, no_toxicity, config=make_config(), decoding=make_decoding(), seed=0)
    with pytest.raises(UserError, match="temperature=0"):
        PPO(policy, tokenizer, no_toxicity, config=make_config(), decoding=make_decoding(temperature=0), seed=0)


def test_minibatches_must_divide_the_batch(make_config):
    with pytest.raises(ValueError, match="must divide rollout_batch_size=8; try 4"):
        make_config(minibatch_size=5)


def test_schedules(make_config):
    constant = make_config(num_steps=6, warmup_steps=2)
    assert [schedule(s, constant) for s in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    linear = make_config(num_steps=4, schedule="linear")
    assert [schedule(s, linear) for s in range(4)] == [1, 0.75, 0.5, 0.25]


def hundredfold(texts):
    return [100 * r for r in share_of_low_letters(texts)]


def test_whitening_takes_the_rewards_scale_out_of_the_policys_update(train):
    """By how much a hundredfold reward makes the gradient larger."""
    one_step = {"num_steps": 1, "num_epochs": 1, "minibatch_size": 8, "value_coef": 0.0, "max_grad_norm": 1e9}
    one_step |= {"kl": {"coef": 0.0}, "whiten_rewards": False, "whiten_advantages": False}

    def growth(**options):
        small, large = (
            train(reward=reward, **one_step | options)[1].history[0]["ppo/grad_norm"]
            for reward in (share_of_low_letters, hundredfold)
        )
        return large / small

    assert growth() == pytest.approx(100, rel=1e-3)
    assert growth(whiten_rewards=True) < 20  # deviations are scaled, the mean is kept
    assert growth(whiten_advantages=True) == pytest.approx(1, rel=1e-3)


def test_a_fixed_coefficient_stays(train):
    _, result = train(num_steps=3, kl={"coef": 0.2, "control": "fixed", "horizon": 10})
    assert [row["ppo/kl_coef"] for row in result.history] == [0.2] * 3


def test_a_response_cut_off_by_its_length_pays_the_penalty(train):
    """Six tokens hardly ever end by themselves, so the mean reward falls by nearly the whole penalty."""
    free, fined = (train(num_steps=1, missing_eos_penalty=p)[1].history[0] for p in (0.0, 2.0))
    assert fined["ppo/reward"] == pytest.approx(free["ppo/reward"] - 2.0 * (1 - free["ppo/eos_share"]), abs=1e-5)


def test_no_response_ends_before_the_minimum_length(train):
    _, result = train(num_steps=2, decoding={"min_new_tokens": 6})
    assert all(row["ppo/response_length_tokens"] == 6 for row in result.history)


def test_bfloat16_weights_train_a_float32_adapter(train, make_policy):
    policy = make_policy().to(torch.bfloat16)
    for p in policy.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    _, result = train(with_policy=policy, num_steps=3)
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in result.history)
    assert result.history[-1]["ppo/kl_nats_per_sequence"] > 0


@pytest.mark.parametrize("value_function", ["head", "lora"])
def test_under_autocast_ppo_learns_from_nearly_the_same_numbers_and_its_ratios_start_at_one(train, value_function):
    _, exact = train(num_steps=2, value_function=value_function)
    policy, result = train(num_steps=2, value_function=value_function, autocast="bfloat16")
    first, expected = result.history[0], exact.history[0]
    assert first["ppo/policy_entropy_nats"] == pytest.approx(expected["ppo/policy_entropy_nats"], rel=0.01)
    assert first["ppo/policy_entropy_nats"] != expected["ppo/policy_entropy_nats"]
    assert first["ppo/kl_nats_per_sequence"] == 0  # policy and reference are the same network: rounded alike
    assert {p.dtype for p in policy.parameters()} == {torch.float32}


def test_an_empty_batch_is_an_error_with_its_step(train, monkeypatch):
    def silent(*args, **settings):
        return [dataclasses.replace(r, text=" ") for r in sample_responses(*args, **settings)]

    monkeypatch.setattr(ppo_module, "sample_responses", silent)
    with pytest.raises(UserError, match=r"ppo step 1: all 8 responses are empty.*min_new_tokens"):
        train()
