"""Ends of 95 % intervals, and what an interval could have detected. Pure functions.

Bootstrap percentiles are too narrow for few prompts: they lack the factor sqrt(n / (n - 1)) and the heavier tail of t.
The tails are taken further out, so that the interval of a mean of n normal values has t's width: Hesterberg 2015
(arXiv 1411.5279), section 5.2, "expanded percentile".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

TAIL = 0.025
"""Probability beyond each end of a 95 % interval."""
Z = float(ndtri(1 - TAIL))
POWER = 0.8
"""Probability with which a difference of the size `Estimate.detectable` is found."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval: Estimate(value=.12, ci95=(.09, .15), num_clusters=400)."""

    value: float
    ci95: tuple[float, float] | None
    """None with fewer than two clusters: one prompt says nothing about how much prompts differ."""
    num_clusters: int
    """Prompts."""

    @property
    def detectable(self) -> float | None:
        """Of a difference: the size that would have been found with probability `POWER`; None without an interval.

        (z(.975) + z(.8)) standard errors, 1.43 times half the interval's width. It is about the sample, not about what
        was observed in it.
        """
        if self.ci95 is None:
            return None
        return (1 + float(ndtri(POWER)) / Z) * (self.ci95[1] - self.ci95[0]) / 2


def t_quantile(df: float) -> float:
    """The 97.5 % quantile of t with `df` > 0 degrees of freedom; the normal one for infinitely many."""
    return Z if math.isinf(df) else float(stdtrit(df, 1 - TAIL))


def as_t(normal_quantile: float, num_clusters: int) -> float:
    """The quantile >= 0 of t at the probability of a normal one, in standard errors of a bootstrap over few prompts.

    as_t(1.96, 20) is 2.093 * sqrt(20 / 19): the bootstrap's standard errors lack that factor.
    """
    t = -float(stdtrit(num_clusters - 1, ndtr(-normal_quantile)))
    return math.sqrt(num_clusters / (num_clusters - 1)) * t


def percentile_interval(resampled: np.ndarray, num_clusters: int) -> tuple[float, float]:
    """The ends of a 95 % interval from means resampled over `num_clusters` >= 2 prompts."""
    tail = float(ndtr(-math.sqrt(num_clusters / (num_clusters - 1)) * t_quantile(num_clusters - 1)))
    lo, hi = np.quantile(resampled, [tail, 1 - tail])
    return float(lo), float(hi)


def mean_t(values: Sequence[float] | np.ndarray) -> Estimate | None:
    """Mean of independent `values` +- t standard errors, for samples too small to resample; None without any value."""
    rows = np.asarray(values, dtype=np.float64)
    rows = rows[~np.isnan(rows)]
    if not len(rows):
        return None
    value, n = float(rows.mean()), len(rows)
    if n < 2:
        return Estimate(value, None, n)
    half = t_quantile(n - 1) * float(rows.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, (value - half, value + half), n)
