import numpy as np
import pytest

from detoxlens.evaluation.bands import difference_band, max_t_band, simultaneous_band
from detoxlens.evaluation.stats import curve_ci
from detoxlens.params.report import Bootstrap


def test_the_band_holds_the_whole_curve_95_times_in_100_and_pointwise_intervals_do_not():
    rng = np.random.default_rng(0)
    whole = pointwise = 0
    for trial in range(200):
        curves = rng.normal(size=(80, 1)) + rng.normal(size=(80, 15))  # truth: 0 at every step
        lo, hi = simultaneous_band(range(80), curves, Bootstrap(num_resamples=400, seed=trial))
        whole += bool(((lo <= 0) & (hi >= 0)).all())
        _, lo, hi = curve_ci(range(80), curves, Bootstrap(num_resamples=400, seed=trial))
        pointwise += bool(((lo <= 0) & (hi >= 0)).all())
    assert 0.91 <= whole / 200 <= 0.985
    assert pointwise / 200 < 0.85


def test_one_step_is_an_interval_of_t():
    # 2,000 resamples of 20 values: mean +- t(19) * s / sqrt(20)
    values = np.random.default_rng(1).normal(size=(20, 1))
    lo, hi = simultaneous_band(range(20), values, Bootstrap(num_resamples=2000, seed=0))
    half = 2.093 * values.std(ddof=1) / np.sqrt(20)
    assert (hi - lo) / 2 == pytest.approx(half, rel=0.05)
    assert (hi + lo) / 2 == pytest.approx(values.mean())


def test_steps_that_a_resample_misses_are_left_out_of_its_largest_distance():
    draws = np.array([[0.0, np.nan], [1.0, 5.0], [-1.0, -5.0], [0.5, np.nan]])
    lo, hi = max_t_band(np.zeros(2), draws, 30)
    assert np.isfinite(lo).all() and hi[1] > hi[0] > 0


def test_without_rows_or_with_one_prompt_there_is_no_band():
    for keys, values in (([], np.empty((0, 3))), (["a", "a"], np.ones((2, 3)))):
        lo, hi = simultaneous_band(keys, values, Bootstrap(num_resamples=100, seed=0))
        assert np.isnan([lo, hi]).all() and lo.shape == (3,)


def test_a_difference_of_two_groups_step_by_step():
    # step 1: (1 + 3) / 2 - (10 + 20) / 2 = -13; step 2: 2 - (4 + 6) / 2 = -3, one row ended
    values = np.array([[1.0, 2.0], [3.0, np.nan], [10.0, 4.0], [20.0, 6.0]])
    mean, lo, hi = difference_band("abcd", values, [True, True, False, False], Bootstrap(num_resamples=500, seed=0))
    assert mean.tolist() == [-13, -3]
    assert np.isnan(lo).all() and np.isnan(hi).all()  # one prompt at step 2 says nothing about how prompts differ
    mean, lo, hi = difference_band(
        "abcd", values[:, :1], [True, True, False, False], Bootstrap(num_resamples=500, seed=0)
    )
    assert lo < mean < hi
