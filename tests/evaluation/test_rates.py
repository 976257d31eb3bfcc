import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from detoxlens.evaluation.rates import effective_n, newcombe_paired, rate_ci, rate_difference, wilson


@pytest.mark.parametrize("toxic, n", [(0, 16), (1, 16), (7, 30), (248, 400), (30, 30)])
def test_wilson_equals_scipy(toxic, n):
    theirs = scipy_stats.binomtest(toxic, n).proportion_ci(0.95, method="wilson")
    assert wilson(toxic / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_one_toxic_completion_more_moves_both_ends_of_the_interval_up():
    # a percentile bootstrap gave [0, .206] for 0 of 16 and [0, .188] for 1 of 16
    none, one = (rate_ci(range(16), [1.0] * k + [0.0] * (16 - k)).ci95 for k in (0, 1))
    assert none == pytest.approx((0, 0.1936), abs=1e-4) and one == pytest.approx((0.0111, 0.2833), abs=1e-4)


def test_newcombes_interval_as_published():
    # Cavo et al. 2012 in Fagerland, Lydersen and Laake 2017, ch. 8 (R package contingencytables): -.0621
    assert newcombe_paired(59, 6, 16, 80) == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    assert newcombe_paired(59, 16, 6, 80) == pytest.approx((0.0046, 0.1186), abs=5e-5)


def test_no_discordant_pair_leaves_what_wilson_leaves():
    # no pair at all has it: 0 +- the upper end of 0 of 10, .2775, on both sides
    assert newcombe_paired(0, 0, 0, 10) == pytest.approx((-0.2775, 0.2775), abs=1e-4)


def test_one_sample_per_prompt_is_n_trials_and_paired_by_prompt_whatever_the_order():
    ours, theirs = [1, 1, 0, 0, 1], [1, 0, 0, 1, 0]  # both 1, first 2, second 1, neither 1
    found = rate_difference("abcde", ours, "edcba", theirs[::-1])
    assert (found.value, found.num_clusters) == (pytest.approx(0.2), 5)
    assert found.ci95 == newcombe_paired(1, 2, 1, 1)


def test_samples_that_are_all_alike_within_a_prompt_count_once():
    toxic = [i % 2 for i in range(40)]
    once = rate_ci(range(40), toxic)
    often = rate_ci([i for i in range(40) for _ in range(25)], np.repeat(toxic, 25))
    # n_eff = 39 (z / t)^2 = 36.6 instead of 40: the variance is estimated
    assert often.ci95 == pytest.approx(wilson(0.5, 39 * (1.95996 / scipy_stats.t.ppf(0.975, 39)) ** 2), abs=1e-5)
    assert once.ci95 == wilson(0.5, 40)


def test_the_effective_n_is_what_the_design_effect_says():
    # 4 prompts x 2 samples: means 0, .5, .5, 1 -> p = .5, V = (1/16 + 0 + 0 + 1/16) / 3 / ... = .25 / 12 * 2 = .0417
    values = [0, 0, 0, 1, 1, 0, 1, 1]
    keys = [i // 2 for i in range(8)]
    variance = np.var([0, 0.5, 0.5, 1], ddof=1) / 4
    n = 0.25 / variance * (1.959964 / scipy_stats.t.ppf(0.975, 3)) ** 2
    assert rate_ci(keys, values).ci95 == pytest.approx(wilson(0.5, n), abs=1e-5)


def test_samples_are_worth_no_more_than_independent_ones_and_alike_ones_as_many_as_there_are_prompts():
    assert effective_n(0.3, 0.0, 9, num_clusters=10, num_trials=50) == 50
    assert effective_n(0.0, 0.0, 9, num_clusters=10, num_trials=50) == 10
    assert rate_ci([0, 0, 1, 1], [0, 0, 0, 0]).ci95 == wilson(0, 2)


def test_several_samples_are_paired_by_the_correlation_over_prompts():
    rng = np.random.default_rng(0)
    hard = rng.beta(0.5, 0.5, 200)
    keys = np.repeat(np.arange(200), 10)
    a, b = (rng.random(2000) < np.repeat(hard, 10) for _ in range(2))
    paired = rate_difference(keys, a, keys, b).ci95
    apart = rate_ci(keys, a).ci95
    assert paired[1] - paired[0] < 0.6 * (apart[1] - apart[0])  # unpaired it would be 1.4 times as wide
    assert paired[0] < 0 < paired[1]


def test_prompts_that_only_one_side_has_do_not_count():
    # a: x=1, y=0; b: y=1, z=0 -> only y counts
    found = rate_difference(["x", "y"], [1, 0], ["y", "z"], [1, 0])
    assert (found.value, found.num_clusters) == (-1, 1)
    assert rate_difference(["x"], [1], ["y"], [1]) is None
    assert rate_ci([], []) is None and rate_ci(["a"], [math.nan]) is None


def test_one_prompt_with_samples_that_differ_has_no_interval():
    assert rate_ci(["a", "a"], [0, 1]).ci95 is None
    assert rate_difference(["a", "a"], [0, 1], ["a", "a"], [1, 1]).ci95 is None


def test_what_could_have_been_detected_is_found_four_times_in_five():
    """An effect of the size that an empty comparison names is shown in about 80 % of such samples."""
    rng = np.random.default_rng(1)
    n = 400
    nothing = [rate_difference(range(n), rng.random(n) < 0.3, range(n), rng.random(n) < 0.3) for _ in range(40)]
    effect = float(np.mean([found.detectable for found in nothing]))
    shown = 0
    for _ in range(400):
        lo, hi = rate_difference(range(n), rng.random(n) < 0.3 + effect, range(n), rng.random(n) < 0.3).ci95
        shown += not lo <= 0 <= hi
    assert 0.74 < shown / 400 < 0.86
