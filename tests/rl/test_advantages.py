"""Advantages and KL estimators: hand arithmetic, and slow loops kept here."""

from __future__ import annotations

import math

import pytest
import torch

from detoxlens.rl.advantages import gae, kl_k1, kl_k3, masked_mean, masked_whiten, token_rewards

T, F = True, False


def test_masked_mean_leaves_the_padding_out():  # (1 + 3) / 2
    assert masked_mean(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([T, T, F])).item() == 2.0


def test_whitening_takes_the_unbiased_variance_and_zeroes_the_padding():
    # [1, 3]: mean 2, variance ((-1)^2 + 1^2) / (2 - 1) = 2 -> -1 / sqrt 2, 1 / sqrt 2
    whitened = masked_whiten(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([T, T, F]))
    torch.testing.assert_close(whitened, torch.tensor([-math.sqrt(0.5), math.sqrt(0.5), 0.0]))


def test_whitening_without_shift_keeps_the_mean():  # the same, plus 2
    whitened = masked_whiten(torch.tensor([1.0, 3.0]), torch.tensor([T, T]), shift_mean=False)
    torch.testing.assert_close(whitened, torch.tensor([2 - math.sqrt(0.5), 2 + math.sqrt(0.5)]))


def test_whitening_a_single_value_centres_it():
    assert masked_whiten(torch.tensor([5.0]), torch.tensor([T])).tolist() == [0.0]


def test_k1_is_the_log_ratio_and_k3_its_convex_cousin():
    # p = .5, p_ref = .25: k1 = ln 2; r = .5, k3 = (.5 - 1) - ln .5 = ln 2 - .5
    logp, ref = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert kl_k1(logp, ref).item() == pytest.approx(math.log(2))
    assert kl_k3(logp, ref).item() == pytest.approx(math.log(2) - 0.5)


def test_both_estimators_average_to_the_exact_kl_and_k3_is_never_negative():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    assert (p * kl_k1(p.log(), q.log())).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (p * kl_k3(p.log(), q.log())).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (kl_k3(p.log(), q.log()) >= 0).all() and (kl_k1(p.log(), q.log()) < 0).any()


def test_the_score_falls_on_the_last_response_token_and_the_penalty_on_all():
    # log ratios .5, -1 (and garbage in the padding), coefficient .2 -> -.1, .2 + 3
    logprobs = torch.tensor([[-1.0, -2.0, 7.0], [-1.0, -1.0, -1.0]])
    ref = torch.tensor([[-1.5, -1.0, 3.0], [-1.0, -1.0, -1.0]])
    mask = torch.tensor([[T, T, F], [T, T, T]])
    rewards = token_rewards(torch.tensor([3.0, -1.0]), logprobs, ref, mask, kl_coef=0.2)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 3.2, 0.0], [0.0, 0.0, -1.0]]))


def test_gae_with_lambda_one_is_reward_to_go_minus_value():  # [1, 2, 3], v = .5 -> 6 - .5, 5 - .5, 3 - .5
    advantages, returns = gae(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.full((1, 3), 0.5), torch.tensor([[T, T, T]]), gamma=1.0, lam=1.0
    )
    assert advantages.tolist() == [[5.5, 4.5, 2.5]]
    assert returns.tolist() == [[6.0, 5.0, 3.0]]


def test_gae_with_lambda_zero_is_the_one_step_error():  # r + .5 v' - v: 1 + 1 - 1, 0 + 0 - 2
    advantages, _ = gae(
        torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[T, T]]), gamma=0.5, lam=0.0
    )
    assert advantages.tolist() == [[1.0, -2.0]]


def test_gae_discounts_by_gamma_times_lambda():
    # gamma .5, lambda .5, v = 0, r = [0, 0, 8]: A_2 = 8, A_1 = .25 * 8 = 2, A_0 = .25 * 2 = .5
    advantages, _ = gae(
        torch.tensor([[0.0, 0.0, 8.0]]), torch.zeros(1, 3), torch.tensor([[T, T, T]]), gamma=0.5, lam=0.5
    )
    assert advantages.tolist() == [[0.5, 2.0, 8.0]]


def test_padding_changes_no_advantage_of_a_shorter_row():
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.3, 0.7]])
    alone = gae(rewards, values, torch.tensor([[T, T]]), gamma=0.9, lam=0.8)
    garbage = torch.tensor([[5.0, -3.0]])
    padded = gae(
        torch.cat([rewards, garbage], 1),
        torch.cat([values, garbage], 1),
        torch.tensor([[T, T, F, F]]),
        gamma=0.9,
        lam=0.8,
    )
    for short, long in zip(alone, padded, strict=True):
        torch.testing.assert_close(long, torch.cat([short, torch.zeros(1, 2)], 1))


def test_gae_equals_the_sum_in_the_paper():  # eq. 16: A_t = sum_l (gamma lambda)^l delta_{t + l}
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(3, 6, generator=generator), torch.randn(3, 6, generator=generator)
    advantages, returns = gae(rewards, values, torch.ones(3, 6, dtype=torch.bool), gamma=0.97, lam=0.9)
    for b in range(3):
        v = [*values[b].tolist(), 0.0]
        delta = [rewards[b, t].item() + 0.97 * v[t + 1] - v[t] for t in range(6)]
        for t in range(6):
            expected = sum((0.97 * 0.9) ** k * delta[t + k] for k in range(6 - t))
            assert advantages[b, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[b, t].item() == pytest.approx(expected + v[t], abs=1e-5)
