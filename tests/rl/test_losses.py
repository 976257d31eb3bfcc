"""PPO's losses and diagnostics, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from detoxlens.rl.losses import clip_fraction, entropy_nats, explained_variance, kl_nats, policy_loss, value_loss


def test_policy_loss_within_the_clip_range_is_minus_advantage_times_ratio():  # -2 * 1.1
    loss = policy_loss(torch.tensor([1.1]).log(), torch.zeros(1), torch.tensor([2.0]), clip_range=0.2)
    assert loss.item() == pytest.approx(-2.2)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # good action, already much likelier: clipped at 1.2, no more push
        (0.5, 2.0, -1.0, -1.0),  # good action, less likely: unclipped, d/dlogp = -A * ratio
        (0.5, -2.0, 1.6, 0.0),  # bad action, already much rarer: clipped at .8
        (1.5, -2.0, 3.0, 3.0),  # bad action, likelier: unclipped
    ],
)
def test_policy_loss_is_pessimistic(ratio, advantage, expected, slope):
    logprobs = torch.tensor([ratio]).log().requires_grad_()
    loss = policy_loss(logprobs, torch.zeros(1), torch.tensor([advantage]), clip_range=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert logprobs.grad.item() == pytest.approx(slope)


def test_policy_loss_is_a_sum_so_that_micro_batches_add_up():
    logp, old, adv = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).unbind()
    whole = policy_loss(logp, old, adv, clip_range=0.2)
    parts = sum(policy_loss(logp[s], old[s], adv[s], clip_range=0.2) for s in (slice(0, 3), slice(3, 7)))
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [
        (1.1, 1.0, 2.0, 0.405),  # within the range: .9^2 / 2
        (2.0, 1.0, 2.0, 0.32),  # a jump is clipped to 1.2: .8^2 / 2, although the unclipped error is 0
        (0.0, 1.0, 2.0, 2.0),  # moving away: the larger, unclipped error 2^2 / 2
    ],
)
def test_value_loss_takes_the_worse_of_both_errors(value, old, target, expected):
    loss = value_loss(torch.tensor([value]), torch.tensor([old]), torch.tensor([target]), clip_range=0.2)
    assert loss.item() == pytest.approx(expected)


def test_entropy_of_a_fair_coin_is_ln_2_and_of_a_certainty_0():
    rows = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()
    assert entropy_nats(rows).tolist() == pytest.approx([math.log(2), 0.0])


def test_exact_kl():  # .5 ln(.5 / .25) + .5 ln(.5 / .75) = .5 ln(4 / 3)
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl_nats(p, q).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert kl_nats(p, p).item() == 0


def test_clip_fraction():  # ratios 1.1, 1.3, .7, 1 with range .2: two of four
    ratios = torch.tensor([1.1, 1.3, 0.7, 1.0])
    assert clip_fraction(ratios.log(), torch.zeros(4), clip_range=0.2).item() == 0.5


@pytest.mark.parametrize(
    ("values", "returns", "expected"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], 0.0),  # a constant explains nothing
        ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], -3.0),  # residuals -2, 0, 2: variance 8/3 against 2/3
        ([1.0, 2.0], [4.0, 4.0], 0.0),  # nothing to explain
    ],
)
def test_explained_variance(values, returns, expected):
    assert explained_variance(torch.tensor(values), torch.tensor(returns)) == pytest.approx(expected)
