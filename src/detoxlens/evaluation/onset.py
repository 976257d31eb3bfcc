"""Event study around the onset of toxicity: a measure before, at and after it, against matched controls. Pure.

    completion i turns toxic at step s.   lag l: its value at s + l minus the mean of the controls at s + l
    controls: other completions that have a token at s + l and have not turned toxic by max(s, s + l)

Not-yet-treated controls (Callaway and Sant'Anna 2021, doi:10.1016/j.jeconom.2020.12.001) at the same position: what
changes along every completion cancels.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.bands import max_t_band
from detoxlens.evaluation.intervals import percentile_interval
from detoxlens.evaluation.stats import resampled_sums
from detoxlens.evaluation.token_contrast import by_prompt
from detoxlens.params.report import Bootstrap

NEVER = 10**6
"""Onset of a completion that does not turn toxic."""
MIN_CONTROLS = 3
"""Of a step and lag; where there are fewer, those that turn toxic at the step are not counted at the lag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStudy:
    """Each (lags,)."""

    lags: np.ndarray
    """-max_lag..max_lag"""
    value: np.ndarray
    """Events minus controls; NaN where too few events are left."""
    lo: np.ndarray
    hi: np.ndarray
    """95 % of each lag alone."""
    band_lo: np.ndarray
    band_hi: np.ndarray
    """95 % of all lags at once."""
    num_events: np.ndarray


def event_study(
    prompts: Sequence[Hashable],
    values: np.ndarray,
    onset: np.ndarray,
    bootstrap: Bootstrap,
    *,
    max_lag: int,
    min_events: int,
) -> EventStudy:
    """The study of `values` (completions, steps), NaN where there is no token.

    Args:
        prompts: (completions,): what is resampled.
        values: of all completions, those that turn toxic and those that do not.
        onset: (completions,): step, from 0, with which each turns toxic; `NEVER`.
        bootstrap: of prompts.
        max_lag: before and after.
        min_events: a lag with fewer has no value.
    """
    lags = np.arange(-max_lag, max_lag + 1)
    num_steps = values.shape[1]
    cells = [
        (i, s, s + lag)
        for i, lag in enumerate(lags.tolist())
        for s in np.unique(onset[onset < num_steps]).tolist()
        if 0 <= s + lag < num_steps
    ]
    columns, of_lag, num_events = [], [], np.zeros(len(lags), dtype=int)
    for i, s, step in cells:
        y = values[:, step]
        there = ~np.isnan(y)
        event, control = there & (onset == s), there & (onset > max(s, step))
        if not event.any() or control.sum() < MIN_CONTROLS:
            continue
        y = np.where(there, y, 0.0)
        columns.append([y * event, event, y * control, control])
        of_lag.append(i)
        num_events[i] += int(event.sum())
    blank = np.full(len(lags), np.nan)
    if not columns:
        return EventStudy(
            lags=lags, value=blank, lo=blank, hi=blank, band_lo=blank, band_hi=blank, num_events=num_events
        )
    sums = by_prompt(prompts, np.array(columns, dtype=np.float64).transpose(2, 1, 0).reshape(len(prompts), -1))
    weight = (np.array(of_lag)[:, None] == np.arange(len(lags))).astype(np.float64)  # (cells, lags)
    value = _curve(sums.sum(0)[None], weight)[0]
    draws = _curve(resampled_sums(bootstrap, sums), weight)
    enough = num_events >= min_events
    value[~enough] = np.nan
    draws[:, ~enough] = np.nan
    lo, hi, band_lo, band_hi = (blank.copy() for _ in range(4))
    shown = np.flatnonzero(enough)
    for i in shown:
        lo[i], hi[i] = percentile_interval(draws[~np.isnan(draws[:, i]), i], int(num_events[i]))
    if len(shown):
        band_lo[shown], band_hi[shown] = max_t_band(value[shown], draws[:, shown], int(num_events[shown].min()))
    return EventStudy(lags=lags, value=value, lo=lo, hi=hi, band_lo=band_lo, band_hi=band_hi, num_events=num_events)


def _curve(sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(rows, lags) from (rows, 4 cells): sum and number of the events of each cell, then of its controls."""
    total, n, rest, m = np.split(sums, 4, axis=1)
    both = (n > 0.5) & (m > 0.5)
    difference = np.where(both, total / np.maximum(n, 1) - rest / np.maximum(m, 1), 0.0)
    n = np.where(both, n, 0.0)
    whole = np.einsum("rc,cl->rl", n, weight)
    part = np.einsum("rc,cl->rl", n * difference, weight)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
