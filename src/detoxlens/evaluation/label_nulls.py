"""Null distributions of labels on tokens: what a statistic would be if the labels stood elsewhere. Pure, seeded.

Labels are a matrix (completions, steps), False behind a completion's end:

    shifted    each completion's labels turned round by a random number of its tokens: as many, as bunched, elsewhere
    permuted   at each step the labels dealt out anew among the completions that have a token there: other completions

p = (1 + number of draws as far from the mean as the observed value) / (draws + 1), the observed value among those that
the mean is of: exact where the labels are exchangeable (Phipson and Smyth 2010, doi:10.2202/1544-6115.1585).
"""

from __future__ import annotations

import numpy as np


def shifted(labels: np.ndarray, there: np.ndarray, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, completions, steps): every completion's labels moved round by an offset of its own, 0..its length - 1.

    Args:
        labels: (completions, steps), True where the token is labelled.
        there: (completions, steps), True at the tokens, which stand at the beginning of each row.
        num_draws: how many.
        rng: decides the offsets.
    """
    length = np.maximum(there.sum(1), 1)
    offset = rng.integers(0, length, (num_draws, len(length)))
    steps = np.arange(labels.shape[1])
    source = (steps[None, None, :] - offset[:, :, None]) % length[None, :, None]
    moved = labels[np.arange(len(length))[None, :, None], source]
    return moved & there


def permuted(labels: np.ndarray, there: np.ndarray, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, completions, steps): at every step the labels dealt out anew among those that are there.

    Arguments as of `shifted`; `there` may have gaps.
    """
    found = np.zeros((num_draws, *labels.shape), dtype=bool)
    for step in range(labels.shape[1]):
        rows = np.flatnonzero(there[:, step])
        found[:, rows, step] = rng.permuted(np.tile(labels[rows, step], (num_draws, 1)), axis=1)
    return found


def p_value(observed: float, draws: np.ndarray) -> float | None:
    """Two-sided, 1 / (draws + 1)..1; None where the statistic has no value in any draw.

    Args:
        observed: the statistic.
        draws: (draws,) of the null, NaN where a draw has no value.
    """
    draws = draws[~np.isnan(draws)]
    if np.isnan(observed) or not len(draws):
        return None
    centre = (draws.sum() + observed) / (len(draws) + 1)
    far = abs(observed - centre) - 1e-12 * max(1.0, abs(centre))  # equal draws count as equal
    return float((1 + (np.abs(draws - centre) >= far).sum()) / (len(draws) + 1))
