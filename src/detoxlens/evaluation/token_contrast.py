"""Labelled tokens against others at the same step of other completions, and a regression that holds more alike. Pure.

contrast     sum_t n_t (mean labelled at t - mean others at t) / sum_t n_t,   n_t labelled tokens at step t
regression   y = a_completion + b_step + c label + d log2 p + e (token begins a word);   c is shown
             (within-completion estimator; Frisch-Waugh-Lovell for the nulls)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.intervals import Estimate, percentile_interval
from detoxlens.evaluation.stats import resampled_sums
from detoxlens.params.report import Bootstrap

RIDGE = 1e-10
"""Of the normal equations' mean diagonal: a resample without any token of a step leaves that step's effect at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of some completions, each array (completions, steps)."""

    prompts: Sequence[Hashable]
    """(completions,): what is resampled."""
    there: np.ndarray
    """True at the tokens."""
    labels: np.ndarray
    """True at the labelled ones."""


def contrast(tokens: Tokens, values: np.ndarray, bootstrap: Bootstrap) -> Estimate | None:
    """The position-matched contrast of `values` (completions, steps), NaN where missing; None without a pair."""
    there = tokens.there & ~np.isnan(values)
    labels = tokens.labels & there
    y = np.where(there, values, 0.0)
    parts = [y * labels, labels, y * (there & ~labels), there & ~labels]
    sums = by_prompt(tokens.prompts, np.concatenate([part.astype(np.float64) for part in parts], axis=1))
    value = float(_matched(sums.sum(0)[None])[0])
    if np.isnan(value):
        return None
    return _estimate(value, _matched(resampled_sums(bootstrap, sums)), _clusters(tokens.prompts, labels))


def contrast_of_draws(tokens: Tokens, values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(draws,): the contrast under other labels (draws, completions, steps)."""
    there = tokens.there & ~np.isnan(values)
    y = np.where(there, values, 0.0)
    labelled = np.einsum("rnt,nt->rt", draws, y)
    counts = np.einsum("rnt,nt->rt", draws, there.astype(np.float64))
    return _matched(np.concatenate([labelled, counts, y.sum(0) - labelled, there.sum(0) - counts], axis=1))


def _matched(sums: np.ndarray) -> np.ndarray:
    """(rows,) from (rows, 4 steps): sum and number of the labelled tokens at each step, then of the others."""
    total, n, rest, m = np.split(sums, 4, axis=1)
    both = (n > 0.5) & (m > 0.5)
    difference = np.where(both, total / np.maximum(n, 1) - rest / np.maximum(m, 1), 0.0)
    weight = np.where(both, n, 0.0)
    whole = weight.sum(1)
    return np.divide((weight * difference).sum(1), whole, out=np.full(len(whole), np.nan), where=whole > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Prepared once per measure: the label's coefficient, its interval, and what it would be under other labels."""

    estimate: Estimate
    residual: np.ndarray
    """(tokens,): values without what the other terms explain."""
    basis: np.ndarray
    """(tokens, rank): orthonormal, of all terms but the label."""
    rows: np.ndarray
    """(tokens,): completion of each."""
    steps: np.ndarray
    """(tokens,)"""

    def of_draws(self, draws: np.ndarray) -> np.ndarray:
        """(draws,): the coefficient under other labels (draws, completions, steps); NaN where it has none."""
        labels = draws[:, self.rows, self.steps].astype(np.float64)
        left = labels.sum(1) - ((labels @ self.basis) ** 2).sum(1)
        whole = labels @ self.residual
        return np.divide(whole, left, out=np.full(len(whole), np.nan), where=left > 1e-9)


def regress(
    tokens: Tokens, values: np.ndarray, covariates: Sequence[np.ndarray], bootstrap: Bootstrap, *, min_per_step: int
) -> Regression | None:
    """The regression on all tokens with a value; None where the label cannot be told from the other terms.

    Args:
        tokens: with their labels.
        values: (completions, steps), NaN where missing.
        covariates: (completions, steps) each.
        bootstrap: of prompts; every drawn copy of a completion has its own effect.
        min_per_step: the steps at the end with fewer tokens share one effect.
    """
    there = tokens.there & ~np.isnan(values) & ~np.isnan(np.array(covariates)).any(0)
    rows, steps = np.nonzero(there)
    if not len(rows):
        return None
    y, label = values[there], tokens.labels[there].astype(np.float64)
    counts = there.sum(0)
    last = int(np.argmax(counts < min_per_step)) if (counts < min_per_step).any() else len(counts) - 1
    pooled = np.minimum(steps, last)
    of_step = (pooled[:, None] == np.unique(pooled)[None, 1:]).astype(np.float64)  # the first is the reference
    others = np.column_stack([*(c[there] for c in covariates), of_step])
    of_row = (rows[:, None] == np.unique(rows)[None, :]).astype(np.float64)

    def within(columns: np.ndarray) -> np.ndarray:
        return columns - of_row @ ((of_row.T @ columns) / of_row.sum(0)[:, None])

    design, target = within(np.column_stack([label, others])), within(y[:, None])[:, 0]
    basis = np.column_stack([of_row / np.sqrt(of_row.sum(0)), _orthonormal(design[:, 1:])])
    residual = y - basis @ (basis.T @ y)
    left = float(label @ label - ((label @ basis) ** 2).sum())
    if left <= 1e-9:
        return None
    prompts = [tokens.prompts[i] for i in rows]
    full = np.column_stack([design, target])
    width = full.shape[1]
    keys = {key: i for i, key in enumerate(dict.fromkeys(prompts))}
    of_prompt = np.array([keys[prompt] for prompt in prompts])
    grams = np.zeros((len(keys), width, width))
    for i in range(len(keys)):
        part = full[of_prompt == i]
        grams[i] = np.einsum("na,nb->ab", part, part)
    drawn = resampled_sums(bootstrap, grams.reshape(len(keys), -1)).reshape(-1, width, width)
    normal = drawn[:, :-1, :-1]
    ridge = RIDGE * np.trace(normal, axis1=1, axis2=2) / (width - 1)
    slopes = np.linalg.solve(normal + ridge[:, None, None] * np.eye(width - 1), drawn[:, :-1, -1:])[:, 0, 0]
    value = float(label @ residual / left)
    return Regression(
        estimate=_estimate(value, slopes, len({p for p, on in zip(prompts, label, strict=True) if on})),
        residual=residual,
        basis=basis,
        rows=rows,
        steps=steps,
    )


def by_prompt(prompts: Sequence[Hashable], columns: np.ndarray) -> np.ndarray:
    """(prompts, columns): sums over the rows of each prompt, in the order of their first row."""
    keys = {key: i for i, key in enumerate(dict.fromkeys(prompts))}
    sums = np.zeros((len(keys), columns.shape[1]))
    np.add.at(sums, np.array([keys[prompt] for prompt in prompts], dtype=np.int64), columns)
    return sums


def _clusters(prompts: Sequence[Hashable], labels: np.ndarray) -> int:
    return len({prompt for prompt, row in zip(prompts, labels, strict=True) if row.any()})


def _estimate(value: float, draws: np.ndarray, num_clusters: int) -> Estimate:
    drawn = draws[~np.isnan(draws)]
    return Estimate(value, percentile_interval(drawn, num_clusters) if num_clusters > 1 else None, num_clusters)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what the columns span."""
    if not columns.shape[1]:
        return columns
    u, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return u[:, singular > 1e-9 * max(1.0, float(singular.max(initial=0.0)))]
