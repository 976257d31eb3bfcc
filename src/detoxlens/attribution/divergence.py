"""How differently two models weigh the same tokens: divergences between two rows of scores, in bits. Pure functions.

Kullback & Leibler 1951; Lin 1991, doi:10.1109/18.61115 (Jensen-Shannon).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def kl_bits(p: Sequence[float], q: Sequence[float]) -> float:
    """sum_j p_j log2(p_j / q_j), >= 0; infinite where p has mass that q lacks. Both are normalised to sum to 1."""
    p, q = _normalised(p), _normalised(q)
    assert len(p) == len(q), "the rows must be over the same tokens"
    if any(a > 0.0 and b == 0.0 for a, b in zip(p, q, strict=True)):
        return math.inf
    return max(0.0, math.fsum(a * math.log2(a / b) for a, b in zip(p, q, strict=True) if a > 0.0))


def jensen_shannon_bits(p: Sequence[float], q: Sequence[float]) -> float:
    """(KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2: symmetric, 0 (equal) .. 1 (no token in common)."""
    p, q = _normalised(p), _normalised(q)
    assert len(p) == len(q), "the rows must be over the same tokens"
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return min(1.0, (kl_bits(p, middle) + kl_bits(q, middle)) / 2)


def _normalised(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    if not (total > 0.0 and math.isfinite(total)):
        raise ValueError(f"a distribution needs positive, finite mass; these {len(weights)} weights sum to {total}")
    return [w / total for w in weights]
