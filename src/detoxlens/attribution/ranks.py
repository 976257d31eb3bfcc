"""Spearman's rank correlation: of two rows of scores, of two methods along a completion, within steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, -1..1, equals sharing their mean rank; None where one of them is constant."""
    products = rank_products(np.reshape(a, (-1, 1)), np.reshape(b, (-1, 1)))
    return None if np.isnan(products).any() else float(products.mean())


def mean_rank_correlation(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], num_prompt: int) -> float | None:
    """The mean over generated tokens of the correlation of their prompt scores; None where it never is defined."""
    pairs = zip(a, b, strict=True)
    found = [rank_correlation(ours[:num_prompt], theirs[:num_prompt]) for ours, theirs in pairs]
    defined = [value for value in found if value is not None]
    return sum(defined) / len(defined) if defined else None


def rank_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of standardised ranks, column by column: the mean of a column is its rank correlation.

    Args:
        a: (rows, columns), NaN where missing.
        b: as `a`.

    Returns:
        (rows, columns), NaN where either is missing, and in a column where either is constant.
    """
    found = np.full(np.shape(a), np.nan)
    for column in range(found.shape[1]):
        there = ~(np.isnan(a[:, column]) | np.isnan(b[:, column]))
        x, y = (_standardized(_ranks(of[there, column])) for of in (a, b))
        found[there, column] = x * y
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """1..n, equals sharing their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def _standardized(values: np.ndarray) -> np.ndarray:
    """Mean 0, mean square 1; NaN where all are equal."""
    centred = values - values.mean() if len(values) else values
    spread = np.sqrt((centred**2).mean()) if len(values) else 0.0
    return centred / spread if spread > 0 else np.full_like(centred, np.nan)
