"""From rewards and values to advantages. Pure functions on (batch, time) tensors, right padded.

KL estimators: Schulman 2020 (http://joschu.net/blog/kl-approx.html). Reward shaping: Ziegler et al. 2019
(arXiv 1909.08593), eq. 2. Generalised advantage estimation: Schulman et al. 2016 (arXiv 1506.02438), eq. 16.

A mask marks the tokens of the response, its end-of-sequence token among them:

    response   the  cat  EOS  PAD
    mask         1    1    1    0
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of `values` where `mask` is true."""
    return (values * mask).sum() / mask.sum()


def masked_whiten(
    values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, shift_mean: bool = True
) -> Float[Tensor, "*shape"]:
    """`values` scaled to variance 1 and, with `shift_mean`, to mean 0; zero where `mask` is false.

    The variance is the unbiased one (n - 1), 1e-8 is added to it, as in TRL. A single value is only centred.
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = (((values - mean) * mask) ** 2).sum() / (count - 1).clamp(min=1)
    scale = torch.rsqrt(variance + 1e-8) if count > 1 else torch.ones_like(variance)
    whitened = (values - mean) * scale
    return (whitened if shift_mean else whitened + mean) * mask


def kl_k1(logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log p - log p_ref of the sampled token: unbiased for KL(p || p_ref), in nats, may be negative."""
    return logprobs - ref_logprobs


def kl_k3(logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(r - 1) - log r with r = p_ref / p: unbiased for KL(p || p_ref), in nats, never negative."""
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


KL_ESTIMATORS = {"k1": kl_k1, "k3": kl_k3}


def token_rewards(
    scores: Float[Tensor, " batch"],
    logprobs: Float[Tensor, "batch time"],
    ref_logprobs: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    kl_coef: float,
    estimator: Literal["k1", "k3"] = "k1",
) -> Float[Tensor, "batch time"]:
    """-kl_coef * KL at every token, plus the response's score at its last token; zero in the padding."""
    rewards = -kl_coef * KL_ESTIMATORS[estimator](logprobs, ref_logprobs) * mask
    last = mask.sum(dim=1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def gae(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Advantages A_t = delta_t + gamma * lam * A_{t+1} and returns A_t + V_t; both zero in the padding.

    delta_t = r_t + gamma * V_{t+1} - V_t, where V behind the last response token is 0: the episode ends there,
    by end-of-sequence or by length.
    """
    rewards, values = rewards * mask, values * mask
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    advantages = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values
