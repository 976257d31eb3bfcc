import numpy as np
import pytest

from detoxlens.evaluation.bands import max_t_band
from detoxlens.evaluation.effects import StepTable, step_means
from detoxlens.evaluation.stats import mean_ci
from detoxlens.params.report import Bootstrap


def curve(keys, values, bootstrap):
    return step_means([StepTable(prompts=keys, values=values)], values.shape[1], bootstrap).curve((1,))


def test_the_band_holds_the_whole_curve_95_times_in_100_and_pointwise_intervals_do_not():
    rng = np.random.default_rng(0)
    whole = pointwise = 0
    for trial in range(200):
        curves = rng.normal(size=(80, 1)) + rng.normal(size=(80, 15))  # truth: 0 at every step
        found = curve(range(80), curves, Bootstrap(num_resamples=400, seed=trial))
        whole += bool(((found.band_lo <= 0) & (found.band_hi >= 0)).all())
        pointwise += bool(((found.lo <= 0) & (found.hi >= 0)).all())
    assert 0.91 <= whole / 200 <= 0.985
    assert pointwise / 200 < 0.85


def test_one_step_is_an_interval_of_t():
    # 2,000 resamples of 20 values: mean +- t(19) * s / sqrt(20)
    values = np.random.default_rng(1).normal(size=(20, 1))
    found = curve(range(20), values, Bootstrap(num_resamples=2000, seed=0))
    lo, hi = found.band_lo, found.band_hi
    half = 2.093 * values.std(ddof=1) / np.sqrt(20)
    assert (hi - lo) / 2 == pytest.approx(half, rel=0.05)
    assert (hi + lo) / 2 == pytest.approx(values.mean())


def test_steps_that_a_resample_misses_are_left_out_of_its_largest_distance():
    draws = np.array([[0.0, np.nan], [1.0, 5.0], [-1.0, -5.0], [0.5, np.nan]])
    lo, hi = max_t_band(np.zeros(2), draws, 30)
    assert np.isfinite(lo).all() and hi[1] > hi[0] > 0


def test_with_one_prompt_there_is_no_band():
    found = curve(["a", "a"], np.ones((2, 3)), Bootstrap(num_resamples=100, seed=0))
    assert np.isnan([found.band_lo, found.band_hi]).all() and found.band_lo.shape == (3,)


def test_the_curve_agrees_with_mean_ci_at_every_step():
    keys, values = [i // 2 for i in range(40)], np.random.default_rng(6).random((40, 3))
    bootstrap = Bootstrap(num_resamples=300, seed=1)
    found = curve(keys, values, bootstrap)
    for step in range(3):
        one = mean_ci(keys, values[:, step], bootstrap)
        assert (found.mean[step], found.lo[step], found.hi[step]) == pytest.approx((one.value, *one.ci95))
