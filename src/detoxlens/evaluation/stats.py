"""95 % percentile bootstrap intervals, clustered by prompt. Efron and Tibshirani 1993, ch. 13. Pure functions.

Several samples of one prompt resemble each other, so whole prompts are drawn with replacement, never single rows.
Letters: row = one completion, cluster = one prompt, column = one quantity (or one step of a curve), resample = one draw
of as many prompts as there are. The mean of a resample is sum over rows / number of rows, columns with NaN left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.params.report import Bootstrap

TAIL = 0.025
"""Probability beyond each end of a 95 % interval."""
_CHUNK = 4_000_000
"""Most drawn indices in memory at a time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval: Estimate(value=.12, ci95=(.09, .15), num_clusters=400)."""

    value: float
    ci95: tuple[float, float] | None
    """None with fewer than two clusters: one prompt says nothing about how much prompts differ."""
    num_clusters: int


@dataclass(frozen=True, slots=True)
class Clustered:
    """Rows summed up within their clusters."""

    keys: tuple[Hashable, ...]
    """Clusters in the order of their first row."""
    sums: np.ndarray  # (clusters, columns)
    counts: np.ndarray  # (clusters, columns): rows that are not NaN

    def only(self, keys: Sequence[Hashable]) -> Clustered:
        """The same sums for the given clusters alone, in that order."""
        where = {key: i for i, key in enumerate(self.keys)}
        index = [where[key] for key in keys]
        return Clustered(tuple(keys), self.sums[index], self.counts[index])

    @property
    def means(self) -> np.ndarray:  # (columns,), NaN where no row has a value
        return _ratio(self.sums.sum(0), self.counts.sum(0))


def cluster(keys: Sequence[Hashable], values: Sequence[float] | np.ndarray) -> Clustered:
    """Sums of `values` (rows,) or (rows, columns) per key; NaN is a missing value."""
    rows = np.asarray(values, dtype=np.float64)
    rows = rows.reshape(len(keys), -1) if len(keys) else rows.reshape(0, rows.shape[1] if rows.ndim == 2 else 1)
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    index = np.array([order[key] for key in keys], dtype=np.int64)
    present = ~np.isnan(rows)
    sums, counts = np.zeros((len(order), rows.shape[1])), np.zeros((len(order), rows.shape[1]))
    np.add.at(sums, index, np.where(present, rows, 0.0))
    np.add.at(counts, index, present)
    return Clustered(tuple(order), sums, counts)


def resampled_means(bootstrap: Bootstrap, *data: Clustered) -> list[np.ndarray]:
    """Means (resamples, columns) of each of `data` under the *same* draws of clusters, so that pairs stay paired.

    All of `data` hold the same clusters in the same order. `einsum` rather than a matrix product: it sums in one fixed
    order, whatever the number of BLAS threads, so that the same input gives the same bytes.
    """
    n = len(data[0].keys)
    assert n and all(d.keys == data[0].keys for d in data)
    rng = np.random.default_rng(bootstrap.seed)
    chunk = max(1, min(bootstrap.num_resamples, _CHUNK // n))
    parts: list[list[np.ndarray]] = [[] for _ in data]
    for start in range(0, bootstrap.num_resamples, chunk):
        size = min(chunk, bootstrap.num_resamples - start)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        for part, d in zip(parts, data, strict=True):
            part.append(_ratio(np.einsum("rn,nc->rc", times, d.sums), np.einsum("rn,nc->rc", times, d.counts)))
    return [np.concatenate(part) for part in parts]


def mean_ci(
    keys: Sequence[Hashable],
    values: Sequence[float] | np.ndarray,
    bootstrap: Bootstrap,
    *,
    share: bool = False,
) -> Estimate | None:
    """Mean of `values` (rows,) with its interval; None without any value.

    Args:
        keys: the cluster (prompt) of each row.
        values: one number per row, NaN where missing.
        bootstrap: the draws.
        share: `values` are 0 and 1. When they are all alike no draw differs, and the bootstrap would claim certainty;
            the open end is then the exact binomial one over prompts, `unseen_share_bound`.
    """
    found = _present(cluster(keys, values))
    if found is None:
        return None
    value, n = float(found.means[0]), len(found.keys)
    if share and value in (0.0, 1.0):
        bound = unseen_share_bound(n)
        return Estimate(value, (0.0, bound) if value == 0.0 else (1.0 - bound, 1.0), n)
    if n < 2:
        return Estimate(value, None, n)
    (means,) = resampled_means(bootstrap, found)
    return Estimate(value, percentile_interval(means[:, 0]), n)


def paired_difference(
    keys: Sequence[Hashable],
    values: Sequence[float] | np.ndarray,
    reference_keys: Sequence[Hashable],
    reference_values: Sequence[float] | np.ndarray,
    bootstrap: Bootstrap,
    *,
    share: bool = False,
) -> Estimate | None:
    """Mean of `values` minus mean of `reference_values` on the prompts that have both; None when none has.

    Both sides are drawn together, so what makes a prompt hard for both cancels. Where no prompt differs at all and the
    values are shares, the interval is +- `unseen_share_bound` instead of the bootstrap's [0, 0].
    """
    ours, theirs = _present(cluster(keys, values)), _present(cluster(reference_keys, reference_values))
    if ours is None or theirs is None:
        return None
    known = set(theirs.keys)
    shared = [key for key in ours.keys if key in known]
    if not shared:
        return None
    ours, theirs = ours.only(shared), theirs.only(shared)
    value, n = float(ours.means[0] - theirs.means[0]), len(shared)
    if share and np.array_equal(ours.sums / ours.counts, theirs.sums / theirs.counts):
        bound = unseen_share_bound(n)
        return Estimate(value, (-bound, bound), n)
    if n < 2:
        return Estimate(value, None, n)
    a, b = resampled_means(bootstrap, ours, theirs)
    return Estimate(value, percentile_interval(a[:, 0] - b[:, 0]), n)


def group_difference(
    keys: Sequence[Hashable],
    values: Sequence[float] | np.ndarray,
    in_group: Sequence[bool] | np.ndarray,
    bootstrap: Bootstrap,
) -> Estimate | None:
    """Mean of the rows in the group minus mean of the other rows; None when either side is empty.

    Prompts are drawn once for both sides: a prompt with samples in both stays together.
    """
    rows, inside = np.asarray(values, dtype=np.float64), np.asarray(in_group, dtype=bool)
    data = cluster(keys, np.column_stack([np.where(inside, rows, np.nan), np.where(inside, np.nan, rows)]))
    value = float(data.means[0] - data.means[1])
    if np.isnan(value):
        return None
    (means,) = resampled_means(bootstrap, data)
    drawn = means[:, 0] - means[:, 1]
    drawn = drawn[~np.isnan(drawn)]  # a draw may miss a small group altogether
    few = min((data.counts > 0).sum(0)) < 2
    return Estimate(value, None if few else percentile_interval(drawn), len(data.keys))


def curve_ci(
    keys: Sequence[Hashable], values: np.ndarray, bootstrap: Bootstrap
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end per column of `values` (rows, steps), each (steps,); NaN without rows.

    Intervals are pointwise: they cover each step with 95 %, not the whole curve at once.
    """
    found = cluster(keys, values)
    blank = np.full(found.sums.shape[1], np.nan)
    if len(found.keys) < 2:
        return (found.means if found.keys else blank), blank, blank
    (means,) = resampled_means(bootstrap, found)
    lo, hi = blank.copy(), blank.copy()
    for step in range(means.shape[1]):  # few enough; quantiles of a column without NaN, whichever draws have rows
        drawn = means[~np.isnan(means[:, step]), step]
        if len(drawn):
            lo[step], hi[step] = percentile_interval(drawn)
    return found.means, lo, hi


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of resampled means."""
    lo, hi = np.quantile(resampled, [TAIL, 1 - TAIL])
    return float(lo), float(hi)


def unseen_share_bound(num_clusters: int) -> float:
    """Largest share that 0 out of `num_clusters` does not refute: 1 - .025 ** (1 / n), about 3.7 / n.

    Clopper and Pearson 1934, the case of no success.
    """
    return 1.0 - TAIL ** (1.0 / num_clusters)


def _present(data: Clustered) -> Clustered | None:
    """`data` without the clusters that have no value; None when nothing is left."""
    keys = [key for key, count in zip(data.keys, data.counts[:, 0], strict=True) if count]
    return data.only(keys) if keys else None


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
