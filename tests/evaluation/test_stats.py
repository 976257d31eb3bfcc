import numpy as np
import pytest
from scipy import stats as scipy_stats

from detoxlens.evaluation import stats
from detoxlens.evaluation.intervals import mean_t
from detoxlens.evaluation.stats import (
    cluster,
    mean_ci,
    paired_difference,
    resampled_means,
)
from detoxlens.params.report import Bootstrap


def draws(num_resamples: int, seed: int) -> Bootstrap:
    return Bootstrap(num_resamples=num_resamples, seed=seed)


def test_cluster_sums_rows_of_one_prompt_and_leaves_nan_out():
    found = cluster(["a", "b", "a"], np.array([[1.0, np.nan], [2.0, 5.0], [3.0, 7.0]]))
    assert found.keys == ("a", "b")
    assert found.sums.tolist() == [[4, 7], [2, 5]]
    assert found.counts.tolist() == [[2, 1], [1, 1]]
    assert found.means.tolist() == [6 / 3, 12 / 2]


def level(num_prompts: int) -> float:
    """What an expanded percentile interval asks the bootstrap for, a little more than .95: Hesterberg 2015."""
    t = scipy_stats.t.ppf(0.975, num_prompts - 1)
    return 1 - 2 * scipy_stats.norm.cdf(-np.sqrt(num_prompts / (num_prompts - 1)) * t)


def test_equals_scipy_bootstrap_when_every_prompt_has_one_sample():
    values = np.random.default_rng(1).gamma(1.0, size=60)
    ours = mean_ci([f"p{i}" for i in range(60)], values, draws(999, 5))
    theirs = scipy_stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=999,
        method="percentile",
        rng=np.random.default_rng(5),
        vectorized=True,
        confidence_level=level(60),
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_paired_difference_equals_scipy_bootstrap_of_the_differences():
    rng = np.random.default_rng(2)
    a, b = rng.random(50), rng.random(50)
    keys = [f"p{i}" for i in range(50)]
    ours = paired_difference(keys, a, keys[::-1], b[::-1], draws(500, 9))  # the order does not matter
    theirs = scipy_stats.bootstrap(
        (a - b,),
        np.mean,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(9),
        vectorized=True,
        confidence_level=level(50),
    ).confidence_interval
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_an_interval_of_a_mean_of_few_normal_values_is_as_wide_as_ts():
    # 8 values: a plain percentile interval has sqrt(7 / 8) * 1.96 / 2.365 = 78 % of t's width
    values = np.random.default_rng(3).normal(size=8)
    lo, hi = mean_ci(range(8), values, draws(20_000, 0)).ci95
    t = mean_t(values).ci95
    assert t == pytest.approx(scipy_stats.t.interval(0.95, 7, values.mean(), scipy_stats.sem(values)))
    assert hi - lo == pytest.approx(t[1] - t[0], rel=0.1)


def test_weights_count_as_so_many_rows():
    weighted = cluster(["a", "b", "b"], [1.0, 2.0, np.nan], weights=[3, 0.5, 1])
    assert weighted.sums[:, 0].tolist() == [3, 1] and weighted.counts[:, 0].tolist() == [3, 0.5]
    assert weighted.means[0] == 4 / 3.5


def test_prompts_are_drawn_not_rows():
    # Each of 40 prompts answers all of its 25 samples alike: 1,000 rows know no more than 40.
    few = mean_ci(range(40), [i % 2 for i in range(40)], draws(2000, 0))
    many = mean_ci([i for i in range(40) for _ in range(25)], np.repeat([i % 2 for i in range(40)], 25), draws(2000, 0))
    assert many.ci95 == pytest.approx(few.ci95)
    assert few.ci95[1] - few.ci95[0] > 0.25  # 2 * 1.96 * sqrt(.25 / 40) = .31


def test_resampled_means_are_a_ratio_of_sums_under_the_same_draws_as_a_slow_loop():
    data = cluster(["a", "a", "b", "c"], [1.0, 2.0, 4.0, 8.0])
    (fast,) = resampled_means(draws(100, 3), data)
    drawn = np.random.default_rng(3).integers(0, 3, (100, 3))
    rows = [[1.0, 2.0], [4.0], [8.0]]
    slow = [np.mean([value for i in draw for value in rows[i]]) for draw in drawn]
    assert fast[:, 0].tolist() == pytest.approx(slow)


def test_pairing_removes_what_prompts_share():
    rng = np.random.default_rng(4)
    hard = rng.normal(size=100) * 10
    keys = list(range(100))
    a, b = hard + 1 + rng.normal(size=100) * 0.1, hard
    paired = paired_difference(keys, a, keys, b, draws(1000, 0))
    unpaired = mean_ci(keys, a, draws(1000, 0))
    assert paired.ci95[1] - paired.ci95[0] < 0.1 < 3 < unpaired.ci95[1] - unpaired.ci95[0]
    assert paired.ci95[0] > 0


def test_paired_difference_uses_shared_prompts_only():
    # a: x=1, y=0; b: y=1, z=0 -> only y counts: 0 - 1
    found = paired_difference(["x", "y"], [1.0, 0.0], ["y", "z"], [1.0, 0.0], draws(100, 0))
    assert (found.value, found.num_clusters, found.ci95) == (-1.0, 1, None)
    assert paired_difference(["x"], [1.0], ["y"], [1.0], draws(100, 0)) is None


def test_nothing_to_average_is_none_and_one_prompt_has_no_interval():
    assert mean_ci([], [], draws(100, 0)) is None
    assert mean_ci(["a"], [float("nan")], draws(100, 0)) is None
    assert mean_ci(["a", "a"], [1.0, 2.0], draws(100, 0)).ci95 is None


def test_chunks_do_not_change_the_coverage(monkeypatch):
    monkeypatch.setattr("detoxlens.evaluation.stats._CHUNK", 100)  # 50 prompts: two resamples at a time
    values = np.random.default_rng(1).random(50)
    small = mean_ci(range(50), values, draws(2000, 0))
    assert small.ci95 == pytest.approx(mean_ci(range(50), values, draws(2000, 1)).ci95, abs=0.01)


def test_kept_draws_are_those_that_would_be_drawn_anew(monkeypatch):
    monkeypatch.setattr(stats, "_CHUNK", 200)
    monkeypatch.setattr(stats, "_KEPT", 1200)
    monkeypatch.setattr(stats, "_drawn", {})
    drawn = {n: stats.times_drawn(Bootstrap(num_resamples=100, seed=0), n) for n in (7, 5, 7)}
    assert list(stats._drawn) == [(0, 100, 5), (0, 100, 7)]  # 500 + 700 bytes; 7 was used last
    for n, times in drawn.items():
        rng = np.random.default_rng(0)
        fresh = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(100)]
        assert np.array_equal(times, fresh) and times.dtype == np.float64
    stats.times_drawn(Bootstrap(num_resamples=100, seed=0), 6)  # 600 bytes: with 700 they would be more than 1,200
    assert list(stats._drawn) == [(0, 100, 6)]


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(300):
        toxic = rng.random(120) < 0.3
        lo, hi = mean_ci(range(120), toxic, draws(400, trial)).ci95
        covered += lo <= 0.3 <= hi
    assert 0.91 <= covered / 300 <= 0.98
