"""The value function with an adapter of its own: it learns, and the policy does not feel it."""

from __future__ import annotations

import pytest
import torch

from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.likelihoods import measure, response_logits
from detoxlens.rl.ppo import PPO
from detoxlens.rl.rollout import Response
from detoxlens.rl.value_function import ADAPTER, ValueFunction

RESPONSES = [
    Response(prompt_ids=(5, 6, 7), token_ids=(9, 0), finish_reason="eos", text="g"),
    Response(prompt_ids=(8,), token_ids=(11, 12, 13), finish_reason="length", text="ijk"),
]


def share_of_low_letters(texts):
    return [sum(c < "a" for c in t) / len(t) for t in texts]


@pytest.fixture
def train(make_policy, tokenizer, make_config, make_decoding, prompts):
    def run(folder=None, on_step=None, **changes):
        policy = make_policy()
        ppo = PPO(
            policy, tokenizer, share_of_low_letters, config=make_config(**changes), decoding=make_decoding(), seed=0
        )
        return policy, ppo.train(prompts, checkpoint_folder=folder, on_step=on_step)

    return run


def same(one, two):
    return all(one[n].equal(two[n]) for n in one)


@pytest.mark.parametrize(("kind", "felt"), [("head", True), ("lora", False)])
def test_the_value_loss_moves_the_policy_with_head_and_not_with_lora(train, kind, felt):
    """V is 0 in the first step, so advantages are the same whatever its weight: only the loss could leak."""
    without, with_loss = (
        adapter_state(train(num_steps=1, value_function=kind, value_coef=coef, max_grad_norm=1e9)[0])
        for coef in (0.0, 5.0)
    )
    assert same(without, with_loss) is not felt


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"micro_batch_size": 4}])
def test_it_learns_to_explain_the_returns_and_leaves_the_model_with_one_adapter(train, changes):
    policy, result = train(
        num_steps=12,
        value_function="lora",
        learning_rate=1e-9,
        value_learning_rate=0.02,
        value_clip_range=9.0,
        value_coef=1.0,
        lam=1.0,
        num_epochs=4,
        **changes,
    )
    losses = [row["ppo/value_loss"] for row in result.history]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert list(policy.peft_config) == ["default"] and policy.active_adapter == "default"
    assert all(p.requires_grad == ("lora_" in n) for n, p in policy.named_parameters())


def test_values_are_those_of_a_plain_forward_with_the_second_adapter(make_policy, make_decoding):
    policy = make_policy()
    function = ValueFunction(policy, "lora")
    with torch.no_grad():
        for p in function.parameters:
            p.normal_()
    plain = measure(policy, None, RESPONSES, make_decoding(), eos_token_id=0, micro_batch_size=2)
    values = function.measured(plain, RESPONSES, micro_batch_size=1).values
    for row, r in enumerate(RESPONSES):
        policy.set_adapter(ADAPTER)
        out = policy(input_ids=torch.tensor([[*r.prompt_ids, *r.token_ids]]), output_hidden_states=True)
        policy.set_adapter("default")
        first, last = len(r.prompt_ids) - 1, len(r.prompt_ids) + len(r.token_ids) - 1
        expected = function.head(out.hidden_states[-1][0, first:last])
        torch.testing.assert_close(values[row, : len(r.token_ids)], expected, rtol=1e-5, atol=1e-5)
    assert (values[0, 2:] == 0).all()


def test_the_reference_stays_the_base_model(make_policy, make_decoding):
    policy = make_policy()
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_" in name:
                p.normal_()
    before = measure(policy, None, RESPONSES, make_decoding(), eos_token_id=0, micro_batch_size=2)
    function = ValueFunction(policy, "lora")
    with torch.no_grad():
        for p in function.parameters:
            p.normal_()
    after = measure(policy, None, RESPONSES, make_decoding(), eos_token_id=0, micro_batch_size=2)
    assert after.ref_logprobs.equal(before.ref_logprobs) and after.logprobs.equal(before.logprobs)
    assert response_logits(policy, RESPONSES, None)[0].requires_grad


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2])
def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(train, tmp_path, step):
    settings = {"value_function": "lora", "value_learning_rate": 0.05, "value_coef": 1.0}
    whole, expected = train(**settings)

    def kill(row):
        if row["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, kill, **settings)
    resumed, result = train(tmp_path, **settings)
    assert same(adapter_state(resumed), adapter_state(whole)) and result == expected
