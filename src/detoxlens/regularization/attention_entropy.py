"""Entropy of attention. Attanasio et al. 2022 (arXiv 2203.09192), eq. 1-4, restricted to a part of rows and columns.

    a_j = mean over heads of the attention probability on column j       p_j = a_j / sum of a over the columns
    H   = - sum_j p_j log p_j / log n                                     n columns; 0: all on one, 1: all alike

Their code puts the attention probabilities through another softmax, which leaves hardly any difference between them;
this does not. They sum over layers; the mean taken here lies in 0..1 in any model. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEAST = 1e-12
"""Probabilities below count as this: their part in the entropy is lost in rounding, and log 0 has no gradient."""


def normalized_entropy(weights: Float[Tensor, "rows seq"], columns: Bool[Tensor, "rows seq"]) -> Float[Tensor, " rows"]:
    """Entropy of the weights over the columns, renormalised, divided by log of their number: 0..1.

    Args:
        weights: >= 0.
        columns: two or more in each row.
    """
    kept = torch.where(columns, weights, 0.0)
    probs = kept / kept.sum(1, keepdim=True).clamp(min=LEAST)
    probs = torch.where(columns, probs.clamp(min=LEAST), 1.0)  # 1 log 1 = 0
    return -(probs * probs.log()).sum(1) / columns.sum(1).to(probs.dtype).log()


def attention_entropy(
    attentions: Sequence[Float[Tensor, "batch heads seq seq"]],
    example: Int[Tensor, " rows"],
    positions: Int[Tensor, " rows"],
    columns: Bool[Tensor, "rows seq"],
) -> Float[Tensor, " rows"]:
    """The mean over layers of each row's entropy, 0..1.

    Args:
        attentions: probabilities, layer by layer.
        example: which of the batch a row belongs to.
        positions: whose attention it is.
        columns: to what; two or more in each row.
    """
    entropies = []
    for layer in attentions:
        dtype = torch.promote_types(layer.dtype, torch.float32)
        weights = layer[example, :, positions].to(dtype).mean(1)  # (rows, heads, seq) -> (rows, seq)
        entropies.append(normalized_entropy(weights, columns))
    return torch.stack(entropies).mean(0)
