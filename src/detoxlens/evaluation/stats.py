"""95 % bootstrap intervals of means, clustered by prompt. Efron and Tibshirani 1993, ch. 13. Pure functions.

Several samples of one prompt resemble each other, so whole prompts are drawn with replacement, never single rows.
Letters: row = one completion, cluster = one prompt, column = one quantity (or one step of a curve), resample = one draw
of as many prompts as there are. The mean of a resample is sum over rows / number of rows, columns with NaN left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.common.coded import Coded
from detoxlens.evaluation.intervals import Estimate, percentile_interval
from detoxlens.params.report import Bootstrap

_CHUNK = 4_000_000
"""Most drawn indices in memory at a time."""
_KEPT = 2**27
"""Bytes of draws, one each, that are kept for the next measure."""
_drawn: dict[tuple[int, int, int], list[np.ndarray]] = {}


@dataclass(frozen=True, slots=True)
class Clustered:
    """Rows summed up within their clusters."""

    keys: tuple[Hashable, ...]
    """Clusters in the order of their first row."""
    sums: np.ndarray  # (clusters, columns)
    counts: np.ndarray  # (clusters, columns): weights of the rows that are not NaN

    def only(self, keys: Sequence[Hashable]) -> Clustered:
        """The same sums for the given clusters alone, in that order; zeros for one that has no row."""
        where = {key: i for i, key in enumerate(self.keys)}
        index = [where.get(key, len(where)) for key in keys]
        blank = np.zeros((1, self.sums.shape[1]))
        return Clustered(
            tuple(keys), np.concatenate([self.sums, blank])[index], np.concatenate([self.counts, blank])[index]
        )

    @property
    def means(self) -> np.ndarray:  # (columns,), NaN where no row has a value
        return _ratio(self.sums.sum(0), self.counts.sum(0))

    @property
    def residuals(self) -> np.ndarray:  # (clusters, columns): what each cluster adds to the error of the mean
        return (self.sums - self.means * self.counts) / self.counts.sum(0)


def cluster(
    keys: Sequence[Hashable],
    values: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Clustered:
    """Sums of `values` (rows,) or (rows, columns) per key; NaN is a missing value.

    Args:
        keys: the cluster of each row.
        values: one number per row and column.
        weights: of the rows (rows,), in sums and counts; None is 1 each.
    """
    rows = np.asarray(values, dtype=np.float64)
    rows = rows.reshape(len(keys), -1) if len(keys) else rows.reshape(0, rows.shape[1] if rows.ndim == 2 else 1)
    weight = np.ones((len(keys), 1)) if weights is None else np.asarray(weights, dtype=np.float64)[:, None]
    found = Coded.of(keys).renumbered()
    there = ~np.isnan(rows)
    sums, counts = (_sums(found, of * weight) for of in (np.where(there, rows, 0.0), there))
    return Clustered(tuple(found.names), sums, counts)


def _sums(keys: Coded, values: np.ndarray) -> np.ndarray:
    """(clusters, columns): `values` (rows, columns) added up in the order of the rows."""
    found = [np.bincount(keys.codes, column, len(keys.names)) for column in values.T]
    return np.stack(found, axis=1) if found else np.zeros((len(keys.names), 0))


def present(data: Clustered) -> Clustered | None:
    """`data` without the clusters that have no value; None when nothing is left."""
    keys = [key for key, count in zip(data.keys, data.counts[:, 0], strict=True) if count]
    return data.only(keys) if keys else None


def shared(*data: Clustered) -> list[Clustered] | None:
    """Each of `data` on the clusters in which all have a value, in the order of the first; None when there are none."""
    found = [present(d) for d in data]
    if any(d is None for d in found):
        return None
    everywhere = set.intersection(*(set(d.keys) for d in found))
    keys = [key for key in found[0].keys if key in everywhere]
    return [d.only(keys) for d in found] if keys else None


def resampled_means(bootstrap: Bootstrap, *data: Clustered) -> list[np.ndarray]:
    """Means (resamples, columns) of each of `data` under the *same* draws of clusters, so that pairs stay paired.

    All of `data` hold the same clusters in the same order. `einsum` rather than a matrix product: it sums in one fixed
    order, whatever the number of BLAS threads, so that the same input gives the same bytes.
    """
    n = len(data[0].keys)
    assert n and all(d.keys == data[0].keys for d in data)
    parts: list[list[np.ndarray]] = [[] for _ in data]
    for times in _times_drawn(bootstrap, n):
        for part, d in zip(parts, data, strict=True):
            part.append(_ratio(np.einsum("rn,nc->rc", times, d.sums), np.einsum("rn,nc->rc", times, d.counts)))
    return [np.concatenate(part) for part in parts]


def resampled_sums(bootstrap: Bootstrap, sums: np.ndarray) -> np.ndarray:
    """(resamples, columns): column sums of `sums` (clusters, columns) under the draws of `resampled_means`."""
    return np.concatenate([np.einsum("rn,nc->rc", times, sums) for times in _times_drawn(bootstrap, len(sums))])


def times_drawn(bootstrap: Bootstrap, n: int) -> np.ndarray:
    """(resamples, n): how often each of `n` clusters is in each draw."""
    return np.concatenate(list(_times_drawn(bootstrap, n)))


def _times_drawn(bootstrap: Bootstrap, n: int) -> Iterator[np.ndarray]:
    """(resamples, clusters) in parts that fit in memory: how often each of `n` clusters is in each draw of `n`."""
    for drawn in _all_times_drawn(bootstrap.seed, bootstrap.num_resamples, n):
        yield drawn.astype(np.float64)


def _all_times_drawn(seed: int, num_resamples: int, n: int) -> list[np.ndarray]:
    """Kept, as far as `_KEPT` bytes hold them: every measure of a split is resampled by the same draws."""
    key = seed, num_resamples, n
    if key in _drawn:
        _drawn[key] = _drawn.pop(key)  # the one used last is given up last
        return _drawn[key]
    rng, size = np.random.default_rng(seed), max(1, _CHUNK // n)
    while _drawn and num_resamples * n + sum(map(_num_bytes, _drawn.values())) > _KEPT:
        del _drawn[next(iter(_drawn))]
    _drawn[key] = [_count(rng, min(size, num_resamples - start), n) for start in range(0, num_resamples, size)]
    return _drawn[key]


def _num_bytes(parts: Sequence[np.ndarray]) -> int:
    return sum(part.nbytes for part in parts)


def _count(rng: np.random.Generator, num_resamples: int, n: int) -> np.ndarray:
    drawn = rng.integers(0, n, (num_resamples, n)) + n * np.arange(num_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=num_resamples * n).reshape(num_resamples, n).astype(np.uint8)


def mean_ci(keys: Sequence[Hashable], values: Sequence[float] | np.ndarray, bootstrap: Bootstrap) -> Estimate | None:
    """Mean of `values` (rows,) with its interval; None without any value. Shares: `rates.rate_ci`.

    Args:
        keys: the cluster (prompt) of each row.
        values: one number per row, NaN where missing.
        bootstrap: the draws.
    """
    found = present(cluster(keys, values))
    if found is None:
        return None
    value, n = float(found.means[0]), len(found.keys)
    if n < 2:
        return Estimate(value, None, n)
    (means,) = resampled_means(bootstrap, found)
    return Estimate(value, percentile_interval(means[:, 0], n), n)


def paired_difference(
    keys: Sequence[Hashable],
    values: Sequence[float] | np.ndarray,
    reference_keys: Sequence[Hashable],
    reference_values: Sequence[float] | np.ndarray,
    bootstrap: Bootstrap,
) -> Estimate | None:
    """Mean of `values` minus mean of `reference_values` on the prompts that have both; None when none has.

    Both sides are drawn together, so what makes a prompt hard for both cancels. Shares: `rates.rate_difference`.
    """
    pair = shared(cluster(keys, values), cluster(reference_keys, reference_values))
    if pair is None:
        return None
    ours, theirs = pair
    value, n = float(ours.means[0] - theirs.means[0]), len(ours.keys)
    if n < 2:
        return Estimate(value, None, n)
    a, b = resampled_means(bootstrap, ours, theirs)
    return Estimate(value, percentile_interval(a[:, 0] - b[:, 0], n), n)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
