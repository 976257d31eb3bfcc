"""The two clipped losses of PPO and what is watched beside them. Pure functions.

Schulman et al. 2017 (arXiv 1707.06347), eq. 7 and 9; clipped value loss as in OpenAI's baselines and TRL.
All take one value per response token; how the tokens are laid out does not matter. Losses are *sums*: divided by
the number of tokens of the minibatch they are its mean, however the minibatch is cut into micro batches.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def policy_loss(
    logprobs: Float[Tensor, " tokens"],
    old_logprobs: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
    *,
    clip_range: float,
) -> Float[Tensor, ""]:
    """Sum over tokens of max(-A * rho, -A * clip(rho, 1 - clip_range, 1 + clip_range)), rho = p / p_old."""
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped).sum()


def value_loss(
    values: Float[Tensor, " tokens"],
    old_values: Float[Tensor, " tokens"],
    returns: Float[Tensor, " tokens"],
    *,
    clip_range: float,
) -> Float[Tensor, ""]:
    """Sum over tokens of max((V - R)^2, (V_clipped - R)^2) / 2; V_clipped stays within clip_range of V_old."""
    clipped = torch.minimum(torch.maximum(values, old_values - clip_range), old_values + clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2).sum()


def entropy_nats(log_distribution: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
    """Shannon entropy of each row of log-probabilities, in nats; a probability of 0 (-inf) counts 0."""
    return torch.special.entr(log_distribution.exp()).sum(dim=-1)


def kl_nats(log_p: Float[Tensor, "tokens vocab"], log_q: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
    """KL(p || q) of each row of log-probabilities, exact, in nats: no sampling noise, never negative."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp(min=0)


def clip_fraction(
    logprobs: Float[Tensor, " tokens"], old_logprobs: Float[Tensor, " tokens"], *, clip_range: float
) -> Float[Tensor, ""]:
    """Share of tokens, 0..1, whose ratio left [1 - clip_range, 1 + clip_range]."""
    return ((torch.exp(logprobs - old_logprobs) - 1).abs() > clip_range).float().mean()


def explained_variance(values: Float[Tensor, " tokens"], returns: Float[Tensor, " tokens"]) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant; 0 for constant returns."""
    variance = returns.var(correction=0)
    return 0.0 if variance == 0 else (1 - (returns - values).var(correction=0) / variance).item()
