"""95 % intervals of shares: Wilson 1927, and of paired differences: Newcombe 1998 (Stat. Med. 17, 2635), method 10.

With one sample per prompt, n prompts are n independent trials. Several samples of a prompt resemble one another and are
worth fewer: the effective n is the number of independent trials whose share would vary as much,

    n_eff = p (1 - p) / V * (z / t)^2      V: variance of p over prompts; t: its quantile with V's degrees of freedom

(Korn and Graubard 1998; Kish's design effect is n / n_eff). Where all samples are alike V says nothing, and n_eff is
the number of prompts. Differences of such shares are Newcombe's with the correlation of the two over prompts in place
of phi (Zou and Donner 2008). Unlike a bootstrap's, the interval of 0 of 16 is no point: [0, .19].
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from detoxlens.evaluation.intervals import Estimate, Z, t_quantile
from detoxlens.evaluation.stats import Clustered, cluster, present, shared

Values = Sequence[float] | np.ndarray


def wilson(share: float, n: float) -> tuple[float, float]:
    """The score interval of a share of `n` > 0 trials, which need not be a whole number."""
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return 0.0 if share == 0.0 else middle - half, 1.0 if share == 1.0 else middle + half


def newcombe_paired(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Interval of the share of the first minus that of the second, from the pairs in which both, one or none happened.

    newcombe_paired(36, 12, 2, 0) == (.0569, .3404), the second example of Newcombe's table III.
    """
    n = both + first + second + neither
    determinant = both * neither - first * second
    corrected = max(determinant - n / 2, 0.0) if determinant > 0 else float(determinant)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    return square_and_add(((both + first) / n, n), ((both + second) / n, n), phi)


def square_and_add(first: tuple[float, float], second: tuple[float, float], phi: float) -> tuple[float, float]:
    """Interval of the difference of two shares, each (share, effective n), with the correlation `phi`."""
    (p, n), (q, m) = first, second
    (p_lo, p_hi), (q_lo, q_hi) = wilson(p, n), wilson(q, m)

    def length(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a + b * b - 2 * phi * a * b))

    return p - q - length(p - p_lo, q_hi - q), p - q + length(p_hi - p, q - q_lo)


def effective_n(share: float, variance: float, df: float, *, num_clusters: int, num_trials: float) -> float:
    """Independent trials whose share would vary as much.

    Args:
        share: p.
        variance: of p, over prompts.
        df: degrees of freedom of `variance`.
        num_clusters: prompts: the answer where all trials are alike.
        num_trials: an upper bound: trials that resemble one another are worth no more than independent ones.
    """
    if share in (0.0, 1.0):
        return float(num_clusters)
    found = share * (1 - share) / variance * (Z / t_quantile(df)) ** 2 if variance > 0 else math.inf
    return min(found, num_trials)


def rate_ci(keys: Sequence[Hashable], values: Values, *, num_trials: float | None = None) -> Estimate | None:
    """Mean of `values` (rows,), each 0 or 1 or a share, with its interval; None without any value.

    Args:
        keys: the cluster (prompt) of each row.
        values: NaN where missing.
        num_trials: trials behind all rows together, where a row is a share of several; None is one each.
    """
    found = present(cluster(keys, values))
    if found is None:
        return None
    value, n = float(found.means[0]), _effective_n(found, num_trials)
    return Estimate(value, None if n is None else wilson(value, n), len(found.keys))


def rate_difference(
    keys: Sequence[Hashable],
    values: Values,
    reference_keys: Sequence[Hashable],
    reference_values: Values,
    *,
    num_trials: float | None = None,
    num_reference_trials: float | None = None,
) -> Estimate | None:
    """Share of `values` minus that of `reference_values` on the prompts that have both; None when none has.

    Args: as `rate_ci`, of both sides.
    """
    pair = shared(cluster(keys, values), cluster(reference_keys, reference_values))
    if pair is None:
        return None
    ours, theirs = pair
    p, q = float(ours.means[0]), float(theirs.means[0])
    if _is_one_trial_each(ours) and _is_one_trial_each(theirs):
        a, b = ours.sums[:, 0] > 0, theirs.sums[:, 0] > 0
        counts = [int(np.sum(x)) for x in (a & b, a & ~b, ~a & b, ~a & ~b)]
        return Estimate(p - q, newcombe_paired(*counts), len(ours.keys))
    n, m = _effective_n(ours, num_trials), _effective_n(theirs, num_reference_trials)
    ci95 = None if n is None or m is None else square_and_add((p, n), (q, m), _correlation(ours, theirs))
    return Estimate(p - q, ci95, len(ours.keys))


def _effective_n(data: Clustered, num_trials: float | None) -> float | None:
    """None with one prompt, unless it is one trial or all its trials are alike."""
    value, n = float(data.means[0]), len(data.keys)
    if _is_one_trial_each(data):
        return float(n)
    if n < 2 and value not in (0.0, 1.0):
        return None
    variance = float(np.sum(data.residuals[:, 0] ** 2)) * n / max(1, n - 1)
    trials = float(data.counts.sum()) if num_trials is None else num_trials
    return effective_n(value, variance, max(1, n - 1), num_clusters=n, num_trials=trials)


def _is_one_trial_each(data: Clustered) -> bool:
    return bool((data.counts == 1).all() and np.isin(data.sums, (0.0, 1.0)).all())


def _correlation(ours: Clustered, theirs: Clustered) -> float:
    """Of the two means over prompts; 0 where one of them does not vary."""
    a, b = ours.residuals[:, 0], theirs.residuals[:, 0]
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0
