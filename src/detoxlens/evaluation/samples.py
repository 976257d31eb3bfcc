"""A measure of one variant as a number per row: what every interval and every comparison is made of. Pure functions.

A measure that is no mean of rows, such as perplexity or distinct n-grams, comes as one value per prompt, whose mean it
is and whose spread is its sampling error (`fluency.perplexity_by_prompt`, `diversity.distinct_by_prompt`). Each of the
four functions asks how sure the mean is: of one variant or of several seeds of one method; alone or against another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.rates import rate_ci, rate_difference
from detoxlens.evaluation.seeds import (
    Seeds,
    difference_over_seeds,
    over_seeds,
    rate_difference_over_seeds,
    rate_over_seeds,
)
from detoxlens.evaluation.stats import cluster, mean_ci, paired_difference, resampled_means, shared
from detoxlens.params.report import Bootstrap


@dataclass(frozen=True, slots=True)
class Sample:
    """Sample(keys=("9f86d0", "3a7bd3"), values=np.array([0.0, 1.0]), is_rate=True)"""

    keys: Sequence[Hashable]
    """The prompt of each row."""
    values: np.ndarray  # (rows,), NaN where missing
    is_rate: bool = False
    """Are the values 0 and 1, and the mean a share?"""


def estimate(found: Sample, bootstrap: Bootstrap) -> Estimate | None:
    """The mean with its interval; None without any value."""
    return rate_ci(found.keys, found.values) if found.is_rate else mean_ci(found.keys, found.values, bootstrap)


def difference(ours: Sample, theirs: Sample, bootstrap: Bootstrap) -> Estimate | None:
    """Our mean minus theirs, on the prompts that have both; None when none has."""
    if ours.is_rate:
        return rate_difference(ours.keys, ours.values, theirs.keys, theirs.values)
    return paired_difference(ours.keys, ours.values, theirs.keys, theirs.values, bootstrap)


def method_estimate(seeds: Sequence[Sample], bootstrap: Bootstrap) -> Estimate | None:
    """The mean over the seeds of one method, on the prompts that all of them have; None when there are none."""
    drawn = _draw([seeds], bootstrap)
    if drawn is None:
        return None
    (found,) = drawn.methods
    if drawn.num_prompts < 2:
        return Estimate(found.mean, None, drawn.num_prompts)
    if seeds[0].is_rate:
        return rate_over_seeds(found, drawn.num_prompts, drawn.num_trials[0])
    return over_seeds(found, drawn.num_prompts)


def method_difference(ours: Sequence[Sample], theirs: Sequence[Sample], bootstrap: Bootstrap) -> Estimate | None:
    """The mean over our seeds minus that over theirs, on the prompts that all have; None when there are none."""
    drawn = _draw([ours, theirs], bootstrap)
    if drawn is None:
        return None
    a, b = drawn.methods
    if drawn.num_prompts < 2:
        return Estimate(a.mean - b.mean, None, drawn.num_prompts)
    if ours[0].is_rate:
        return rate_difference_over_seeds(a, b, drawn.num_prompts, *drawn.num_trials)
    return difference_over_seeds(a, b, drawn.num_prompts)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Methods on the same resampled prompts."""

    methods: list[Seeds]
    num_prompts: int
    num_trials: list[float]


def _draw(methods: Sequence[Sequence[Sample]], bootstrap: Bootstrap) -> _Drawn | None:
    data = shared(*(cluster(seed.keys, seed.values) for method in methods for seed in method))
    if data is None:
        return None
    draws = resampled_means(bootstrap, *data)
    found, trials, start = [], [], 0
    for method in methods:
        own = slice(start, start + len(method))
        found.append(Seeds(tuple(float(d.means[0]) for d in data[own]), np.stack([d[:, 0] for d in draws[own]])))
        trials.append(sum(float(d.counts.sum()) for d in data[own]))
        start += len(method)
    return _Drawn(found, len(data[0].keys), trials)
