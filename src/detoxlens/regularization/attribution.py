"""This study's attribution, as a function that can be differentiated once more. Pure functions.

With f the log-odds of a response's token and e_j the input embedding at position j,

    score_j = || (d f / d e_j) * e_j ||_2            input x gradient, as `attribute` writes it

`create_graph` keeps the graph of the gradient: the penalty's own gradient is a second backward pass through it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detoxlens.attribution.targets import log_odds


def attribution_scores(
    logits: Float[Tensor, "rows vocab"],
    tokens: Int[Tensor, " rows"],
    embeddings: Float[Tensor, "batch seq hidden"],
    example: Int[Tensor, " rows"],
    *,
    create_graph: bool,
) -> Float[Tensor, "rows seq"]:
    """Score of every position for each row's token, >= 0, in float32 at least; zero behind the row.

    Args:
        logits: that predict the tokens, computed from `embeddings`.
        tokens: whose log-odds are differentiated.
        embeddings: a leaf that asks for gradients.
        example: which of the batch a row belongs to. Rows of different examples share a backward pass.
        create_graph: will the scores be differentiated?
    """
    values = log_odds(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens)
    turn = _turns(example)
    scores = [None] * len(values)
    for number in range(int(turn.max()) + 1):
        rows = (turn == number).nonzero().squeeze(1)
        (gradient,) = torch.autograd.grad(values[rows].sum(), embeddings, retain_graph=True, create_graph=create_graph)
        product = (gradient * embeddings.detach())[example[rows]]  # (rows of this turn, seq, hidden)
        norms = torch.linalg.vector_norm(product, dim=-1, dtype=values.dtype)
        for row, norm in zip(rows.tolist(), norms, strict=True):
            scores[row] = norm
    return torch.stack(scores)


def share_of(
    scores: Float[Tensor, "rows seq"], part: Bool[Tensor, "rows seq"], whole: Bool[Tensor, "rows seq"]
) -> Float[Tensor, " rows"]:
    """Share of the scores on `whole` that lies on `part` of it, 0..1."""
    total = torch.where(whole, scores, 0.0).sum(1)
    return torch.where(part, scores, 0.0).sum(1) / total.clamp(min=torch.finfo(scores.dtype).tiny)


def _turns(example: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """[0, 0, 1, 1, 1] -> [0, 1, 0, 1, 2]: how many rows of the same example came before."""
    same = example[:, None] == example
    return same.tril(-1).sum(1)
