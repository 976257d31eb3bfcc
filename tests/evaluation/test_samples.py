import numpy as np
import pytest

from detoxlens.evaluation.rates import rate_ci
from detoxlens.evaluation.samples import Sample, difference, estimate, method_difference, method_estimate
from detoxlens.evaluation.stats import mean_ci
from detoxlens.params.report import Bootstrap

DRAWS = Bootstrap(num_resamples=1000, seed=0)


def sample(values, keys=None, **more):
    return Sample(range(len(values)) if keys is None else keys, np.asarray(values, dtype=float), **more)


def test_a_share_and_a_mean_get_their_own_intervals():
    values = [0, 1, 0, 0, 1, 0]
    assert estimate(sample(values, is_rate=True), DRAWS) == rate_ci(range(6), values)
    assert estimate(sample(values), DRAWS) == mean_ci(range(6), values, DRAWS)


def test_a_method_is_the_mean_of_its_seeds_on_the_prompts_that_all_have():
    # seed 1 on a, b, c; seed 2 on b, c, d: (2 + 3) / 2 and (4 + 5) / 2
    seeds = [sample([1, 2, 3], "abc"), sample([4, 5, 6], "bcd")]
    found = method_estimate(seeds, DRAWS)
    assert (found.value, found.num_clusters) == (3.5, 2)
    assert method_estimate([sample([1], "a"), sample([1], "b")], DRAWS) is None


def test_methods_are_compared_on_shared_prompts_and_one_prompt_gives_no_interval():
    ours, theirs = [sample([1, 2], "ab"), sample([3, 2], "ab")], [sample([5, 9], "bc")]
    assert method_difference(ours, theirs, DRAWS).value == 2 - 5
    assert method_difference(ours, theirs, DRAWS).ci95 is None


@pytest.mark.parametrize("is_rate", [False, True])
def test_one_seed_against_one_is_about_the_paired_difference(is_rate):
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    a, b = (sample((rng.random(300) < hard * p).astype(float), is_rate=is_rate) for p in (0.4, 0.9))
    of_methods, of_samples = method_difference([a], [b], DRAWS), difference(a, b, DRAWS)
    assert of_methods.value == pytest.approx(of_samples.value)
    assert of_methods.ci95 == pytest.approx(of_samples.ci95, abs=0.01)


def test_200_nulls_give_about_5_percent_of_differences():
    """Two methods of three seeds each, and one seed against the base, where nothing differs but seeds and prompts."""
    rng = np.random.default_rng(1)
    found = {"means": 0, "shares": 0}
    for _ in range(200):
        hard = rng.normal(size=60)

        ours, theirs = ([hard + rng.normal(size=60) + 0.1 * rng.normal() for _ in range(3)] for _ in range(2))
        for name, of in (("means", sample), ("shares", lambda v: sample(v < -1, is_rate=True))):
            lo, hi = method_difference([of(v) for v in ours], [of(v) for v in theirs], DRAWS).ci95
            found[name] += not lo <= 0 <= hi
    assert found["means"] <= 20 and found["shares"] <= 20  # 10 expected, sd 3.1
