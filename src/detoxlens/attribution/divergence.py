"""Divergences between two models' scores of the same tokens, in bits. Pure functions.

Kullback & Leibler 1951; Lin 1991, doi:10.1109/18.61115 (Jensen-Shannon).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def kl_bits(p: Sequence[float], q: Sequence[float]) -> float:
    """sum_j p_j log2(p_j / q_j), >= 0; infinite where p has mass that q lacks. Both are normalised to sum to 1."""
    return _kl_bits(*_normalised(p, q))


def jensen_shannon_bits(p: Sequence[float], q: Sequence[float]) -> float:
    """(KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2: symmetric, 0 (equal) .. 1 (no token in common)."""
    a, b = _normalised(p, q)
    middle = (a + b) / 2
    return min(1.0, (_kl_bits(a, middle) + _kl_bits(b, middle)) / 2)


def _kl_bits(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0.0
    p, q = p[there], q[there]
    return max(0.0, float((p * np.log2(p / q)).sum())) if q.all() else float("inf")


def _normalised(*rows: Sequence[float]) -> list[np.ndarray]:
    assert len({len(row) for row in rows}) == 1, "the rows must be over the same tokens"
    found = []
    for row in rows:
        weights = np.asarray(row, dtype=np.float64)
        total = float(weights.sum())
        if not 0.0 < total < float("inf"):
            raise ValueError(f"a distribution needs positive, finite mass; these {len(row)} weights sum to {total:g}")
        found.append(weights / total)
    return found
