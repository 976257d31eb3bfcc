"""Several seeds of one method: how far would its mean be from that of other seeds on other prompts?

Seeds are drawn before prompts. Two or three of them cannot stand for their population as hundreds of prompts do: drawn
with replacement (the nested bootstrap) three that differ much cover 87 % instead of 95 %. So prompts are resampled, the
same ones for every seed, and seeds enter by their variance, as readers and cases do in Obuchowski and Rockette 1995:

    V = S^2 / m + c      S^2: variance of the m seeds' means; c: covariance of two seeds' means under resampled prompts
    df = (m - 1) / share of S^2 / m in V

S^2 already holds what prompts do to one seed and not to another; c is what they do to all. Hillis 2007 divides by the
share squared, which covers 92 % with three seeds that differ much; this covers 94 to 98 % (benchmarks/coverage.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.intervals import Estimate, t_quantile
from detoxlens.evaluation.rates import effective_n, square_and_add, wilson


@dataclass(frozen=True, slots=True)
class Seeds:
    """A measure of each seed of one method: Seeds(values=(.06, .08), draws=np.array([[.05, ...], [.09, ...]]))"""

    values: tuple[float, ...]
    draws: np.ndarray  # (seeds, resamples): the measure on resampled prompts, draw b the same prompts for every seed

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def sd(self) -> float | None:
        """Standard deviation between seeds (n - 1 in the denominator); None with one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class OverSeeds(Estimate):
    """A mean over seeds, or a difference of such: its interval is Student's t of `df` degrees of freedom."""

    df: float
    """Infinite where seeds do not differ by more than what prompts do to them."""


@dataclass(frozen=True, slots=True)
class _Variance:
    """Of a mean over seeds, in its two parts."""

    seeds: float
    """S^2 / m; 0 with one seed."""
    prompts: float
    """c; with one seed all of its variance."""
    num_seeds: int

    @property
    def total(self) -> float:
        return self.seeds + max(self.prompts, 0.0)

    @property
    def df(self) -> float:
        return _df([self], self.total)


def over_seeds(found: Seeds, num_clusters: int) -> OverSeeds:
    """The mean over seeds with its interval over seeds and prompts."""
    variance = _variance(found)
    return _t_interval(found.mean, variance.total, variance.df, num_clusters)


def difference_over_seeds(ours: Seeds, theirs: Seeds, num_clusters: int) -> OverSeeds:
    """Mean over our seeds minus mean over theirs, whose draws are the same prompts as ours; either may be one seed."""
    a, b = _variance(ours), _variance(theirs)
    total = a.seeds + b.seeds + max(0.0, a.prompts + b.prompts - 2 * _covariance(ours, theirs))
    return _t_interval(ours.mean - theirs.mean, total, _df([a, b], total), num_clusters)


def rate_over_seeds(found: Seeds, num_clusters: int, num_trials: float) -> Estimate:
    """`over_seeds` of a share, by Wilson on the effective n of `rates`; `num_trials` of all seeds together."""
    n = _effective_n(found, _variance(found), num_clusters, num_trials)
    return Estimate(found.mean, wilson(found.mean, n), num_clusters)


def rate_difference_over_seeds(
    ours: Seeds, theirs: Seeds, num_clusters: int, num_trials: float, num_reference_trials: float
) -> Estimate:
    """`difference_over_seeds` of shares, by Newcombe on their effective n."""
    a, b = _variance(ours), _variance(theirs)
    norm = math.sqrt(a.total * b.total)
    phi = min(1.0, max(-1.0, _covariance(ours, theirs) / norm)) if norm else 0.0
    first = (ours.mean, _effective_n(ours, a, num_clusters, num_trials))
    second = (theirs.mean, _effective_n(theirs, b, num_clusters, num_reference_trials))
    return Estimate(ours.mean - theirs.mean, square_and_add(first, second, phi), num_clusters)


def _variance(found: Seeds) -> _Variance:
    m = len(found.values)
    covariance = np.atleast_2d(np.cov(found.draws))
    if found.sd is None:
        return _Variance(0.0, float(covariance[0, 0]), m)
    return _Variance(found.sd**2 / m, float(covariance[~np.eye(m, dtype=bool)].mean()), m)


def _covariance(ours: Seeds, theirs: Seeds) -> float:
    """What the same prompts do to both: mean over pairs of seeds."""
    both = np.cov(np.concatenate([ours.draws, theirs.draws]))
    m = len(ours.values)
    return float(both[:m, m:].mean())


def _df(parts: list[_Variance], total: float) -> float:
    inverse = sum(part.seeds / total / (part.num_seeds - 1) for part in parts if part.seeds) if total else 0.0
    return 1 / inverse if inverse else math.inf


def _effective_n(found: Seeds, variance: _Variance, num_clusters: int, num_trials: float) -> float:
    return effective_n(found.mean, variance.total, variance.df, num_clusters=num_clusters, num_trials=num_trials)


def _t_interval(value: float, variance: float, df: float, num_clusters: int) -> OverSeeds:
    half = t_quantile(df) * math.sqrt(variance)
    return OverSeeds(value, (value - half, value + half), num_clusters, df)
