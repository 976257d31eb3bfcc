"""Targets of differentiation: a scalar per generated token, from the logits that predict it. Pure functions.

For methods that look at one point only (`input_x_gradient`, `saliency`), scores are normalised to sum to 1, so a factor
common to all inputs cancels. With y the generated token and lo = log p(y) / (1 - p(y)) its log-odds,

    d p = p (1 - p) d lo          d log p = (1 - p) d lo,

so for both targets the log-odds are differentiated: the same scores, but accurate where p is near 1 and p (1 - p) is
lost in rounding. Integrated gradients add up gradients along a path, where the factor varies: there p itself is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

TARGETS = ("probability", "log_probability", "contrastive")


def log_odds(logits: Tensor, token_ids: Tensor) -> Tensor:
    """log p(y) - log(1 - p(y)) of each token, in nats. The sum over the others never contains y: no cancellation.

    Args:
        logits: (..., vocab).
        token_ids: (...), the token y of each row.
    """
    index = token_ids.unsqueeze(-1)
    others = logits.scatter(-1, index, -torch.inf)
    return logits.gather(-1, index).squeeze(-1) - others.logsumexp(-1)


def log_prob(logits: Tensor, token_ids: Tensor) -> Tensor:
    """log p(y) of each token, in nats; arguments as in `log_odds`."""
    return logits.log_softmax(-1).gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)


def target_value(
    logits: Tensor, token_ids: Tensor, *, target: str, contrast_ids: Tensor | None = None, along_path: bool = False
) -> Tensor:
    """The scalar to differentiate for each generated token.

    Args:
        logits: (..., vocab) that predict the tokens.
        token_ids: (...), the generated tokens y.
        target: `probability`, `log_probability`, or `contrastive`: logit of y minus logit of the contrast token, that
            is log p(y) / p(y'). Yin & Neubig 2022 (arXiv 2202.10419), section 3.
        contrast_ids: (...), the tokens y' of the contrastive target.
        along_path: Are gradients added up along a path (integrated gradients)? Then p and log p themselves.
    """
    if target == "contrastive":
        assert contrast_ids is not None
        return (logits.gather(-1, token_ids.unsqueeze(-1)) - logits.gather(-1, contrast_ids.unsqueeze(-1))).squeeze(-1)
    if not along_path:
        return log_odds(logits, token_ids)
    log_p = log_prob(logits, token_ids)
    return log_p if target == "log_probability" else log_p.exp()
