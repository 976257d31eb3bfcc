import numpy as np
import pytest
from scipy import stats as scipy_stats

from detoxlens.evaluation.rates import wilson
from detoxlens.evaluation.seeds import (
    Seeds,
    difference_over_seeds,
    over_seeds,
    rate_difference_over_seeds,
    rate_over_seeds,
)


def drawn(*covariance_rows, num=200_000):
    """Draws (seeds, resamples) with exactly this covariance."""
    target = np.array(covariance_rows)
    noise = np.random.default_rng(0).normal(size=(len(target), num))
    noise -= noise.mean(1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(np.atleast_2d(np.cov(noise))), noise)
    return np.linalg.cholesky(target) @ white


def test_seeds_enter_by_their_variance_and_prompts_by_the_covariance_of_seeds():
    # means .1, .2, .3: S^2 = .01, S^2 / 3 = .003333; c = .002; V = .005333; df = 2 / (.003333 / .005333) = 3.2
    found = over_seeds(
        Seeds((0.1, 0.2, 0.3), drawn([0.004, 0.002, 0.002], [0.002, 0.004, 0.002], [0.002, 0.002, 0.004])), 50
    )
    half = scipy_stats.t.ppf(0.975, 3.2) * np.sqrt(0.01 / 3 + 0.002)
    assert found.value == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((0.2 - half, 0.2 + half), rel=1e-6)


def test_seeds_that_hardly_differ_leave_the_prompts_normal_interval():
    found = over_seeds(Seeds((0.2, 0.2 + 1e-9), drawn([0.0101, 0.01], [0.01, 0.0101])), 50)
    assert found.ci95 == pytest.approx((0.2 - 0.196, 0.2 + 0.196), abs=1e-4)


def test_one_seed_has_no_spread_and_its_prompts_interval():
    found = Seeds((0.4,), drawn([0.01]))
    assert found.sd is None
    assert over_seeds(found, 50).ci95 == pytest.approx((0.4 - 0.196, 0.4 + 0.196), abs=1e-4)


def test_a_difference_to_the_base_model_has_our_seeds_and_what_prompts_do_to_the_difference():
    # c = .002 (two of ours) + .003 (theirs) - 2 * .0015 (between) = .002; S^2 / 2 = .02 ** 2 / 2 / 2 = .0001
    draws = drawn([0.004, 0.002, 0.0015], [0.002, 0.004, 0.0015], [0.0015, 0.0015, 0.003])
    ours, theirs = Seeds((0.1, 0.12), draws[:2]), Seeds((0.5,), draws[2:])
    found = difference_over_seeds(ours, theirs, 50)
    total = 0.0001 + 0.002
    half = scipy_stats.t.ppf(0.975, 1 / (0.0001 / total)) * np.sqrt(total)
    assert found.value == pytest.approx(-0.39)
    assert found.ci95 == pytest.approx((-0.39 - half, -0.39 + half), rel=1e-6)


def test_no_toxic_completion_of_any_seed_is_worth_one_trial_per_prompt():
    found = rate_over_seeds(Seeds((0.0, 0.0, 0.0), np.zeros((3, 100))), num_clusters=16, num_trials=48)
    assert found.ci95 == wilson(0.0, 16)


def test_a_rate_over_seeds_stays_between_0_and_1():
    lo, hi = rate_over_seeds(Seeds((0.01, 0.05, 0.002), np.full((3, 100), 0.01)), num_clusters=100, num_trials=300).ci95
    assert 0 < lo < 0.0207 < hi < 1


def test_three_seeds_cover_what_other_seeds_and_prompts_would_give():
    """S^2 as large as what prompts do: the interval holds the truth about 95 times in 100."""
    rng = np.random.default_rng(3)
    seed_sd, prompt_sd, cell_sd, n, trials = 0.1, 0.5, 1.0, 100, 400
    covered = 0
    for _ in range(trials):
        table = (
            seed_sd * rng.normal(size=(3, 1)) + prompt_sd * rng.normal(size=(1, n)) + cell_sd * rng.normal(size=(3, n))
        )
        times = rng.multinomial(n, np.full(n, 1 / n), size=400) / n
        draws = table @ times.T
        lo, hi = over_seeds(Seeds(tuple(table.mean(1)), draws), n).ci95
        covered += lo <= 0 <= hi
    assert 0.92 <= covered / trials <= 0.98


def test_no_toxic_completion_on_either_side_is_no_certainty():
    none = Seeds((0.0, 0.0), np.zeros((2, 100)))
    found = rate_difference_over_seeds(none, Seeds((0.0,), np.zeros((1, 100))), 16, 32, 16)
    assert found.ci95 == pytest.approx((-0.1936, 0.1936), abs=1e-4)
