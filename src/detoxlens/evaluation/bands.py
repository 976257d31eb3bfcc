"""Bands that hold a whole curve with 95 %, not each of its points: max-t over steps, by the bootstrap.

Of every resampled curve the largest distance from the mean in standard errors is taken; its 95 % quantile q gives
mean +- q standard errors at every step, and few prompts make q larger, as t does. Montiel Olea and Plagborg-Moller
2019 (J. Appl. Econometrics 34), sup-t.
"""

from __future__ import annotations

import warnings

import numpy as np

from detoxlens.evaluation.intervals import as_t


def max_t_band(mean: np.ndarray, draws: np.ndarray, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """(lo, hi), each (steps,), from resampled curves (resamples, steps).

    Args:
        mean: the curve (steps,).
        draws: NaN where a resample has no row at a step.
        num_clusters: prompts behind the step that has fewest: few make the band wider, as t does.
    """
    if num_clusters < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Degrees of freedom|All-NaN|Mean of empty", RuntimeWarning)
        sd = np.nanstd(draws, axis=0, ddof=1)
        distance = np.abs(draws - mean) / np.where(sd > 0, sd, np.nan)
        largest = np.nanmax(distance, axis=1)
    largest = largest[~np.isnan(largest)]
    width = as_t(float(np.quantile(largest, 0.95)), num_clusters) if len(largest) else 0.0
    half = width * sd
    return mean - half, mean + half
