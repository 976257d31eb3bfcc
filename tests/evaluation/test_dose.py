"""Paths over strengths: the level by hand, no extrapolation, planted distances found and planted nulls not."""

from __future__ import annotations

import numpy as np
import pytest

from detoxlens.evaluation.dose import Strength, distance, level_weights, path
from detoxlens.evaluation.effects import StepTable
from detoxlens.params.report import Bootstrap

ALPHAS = np.array([-1.0, 0.0, 0.5, 1.0])
BOOTSTRAP = Bootstrap(num_resamples=400, seed=0)


def weights(relative, level):
    return level_weights(np.array([relative]), ALPHAS, level)[0].tolist()


def test_a_level_is_read_between_the_strengths_around_its_first_crossing():
    # .8 at 0.5, .2 at 1: .5 is half-way; .2 itself is at 1; .9 is half-way between base and 0.5
    assert weights([2.0, 1.0, 0.8, 0.2], 0.5) == pytest.approx([0, 0, 0.5, 0.5])
    assert weights([2.0, 1.0, 0.8, 0.2], 0.2) == pytest.approx([0, 0, 0, 1])
    assert weights([2.0, 1.0, 0.8, 0.2], 0.9) == pytest.approx([0, 0.5, 0.5, 0])
    assert weights([0.0, 1.0, 0.3, 0.6], 0.5) == pytest.approx([0, 1 - 5 / 7, 5 / 7, 0])  # rises again: first fall


def test_nothing_is_extrapolated_not_even_to_strengths_below_0():
    assert np.isnan(weights([0.1, 1.0, 0.8, 0.4], 0.3)).all()


def column(values):
    return StepTable(prompts=range(len(values)), values=np.asarray(values, dtype=float)[:, None])


def strengths(rng, rates, slope, num=200, effects=True, hard=None):
    """A path whose toxicity is `rates` by strength, and whose effect is `slope` per strength."""
    found = {}
    hard = rng.random(num) if hard is None else hard
    for alpha, rate in zip(ALPHAS, rates, strict=True):
        base, own = rng.normal(size=(num, 3)), rng.normal(size=(num, 3))
        shift = slope * alpha
        noise = [0.1 * rng.normal(size=(num, 3)) for _ in range(2)]
        quad = [base, own, base + shift + noise[0], own + shift + noise[1]]
        found[float(alpha)] = Strength(
            toxic=column(hard < rate),
            nll_nats=column(np.full(num, 10.0 + alpha)),
            num_tokens=column(np.full(num, 10.0)),
            quads={"bits": [StepTable(prompts=range(num), values=of) for of in quad]} if effects and alpha else {},
            means={},
        )
    return found


def paths(*of, num=200):
    return [path(strength, range(num), 3, BOOTSTRAP) for strength in of]


def test_a_path_has_rates_effects_and_perplexities_at_its_strengths():
    (found,) = paths(strengths(np.random.default_rng(4), [0.9, 0.8, 0.4, 0.1], 0.2, hard=np.arange(200) / 200))
    assert found.values["toxicity"] == pytest.approx([0.9, 0.8, 0.4, 0.1])
    assert found.values["bits"] == pytest.approx([-0.2, 0, 0.1, 0.2], abs=0.02)
    assert found.values["perplexity"] == pytest.approx(np.exp((10 + ALPHAS) / 10))
    assert found.at_strength("bits", 1).ci95 is None  # base minus base
    lo, hi = found.at_strength("bits", 3).ci95
    assert lo < 0.2 < hi and hi - lo < 0.1
    # .5 of base's .8 is .4: strength 0.5, and the effect there
    assert found.strength_at(0.5) == pytest.approx(0.5)
    assert found.at_level("bits", 0.5)[0] == pytest.approx(found.values["bits"][2])
    assert found.lowest == pytest.approx(0.125)


def test_methods_that_differ_by_strength_alone_are_equal_at_equal_toxicity():
    # The second needs twice the strength for the same toxicity and the same effect: at 1 they differ, at a level not.
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    fast = strengths(rng, [0.8, 0.8, 0.4, 0.1], 0.2, hard=hard)
    slow = strengths(rng, [0.8, 0.8, 0.6, 0.4], 0.1, hard=hard)
    one, other = paths(fast, slow)
    assert one.values["bits"][3] - other.values["bits"][3] > 0.07
    found, missed = distance([one], [other], "bits", 0.6)
    assert found.ci95[0] < 0 < found.ci95[1] and missed < 0.05
    assert abs(found.value) < 0.03


def test_a_planted_distance_at_equal_toxicity_is_found_with_its_size():
    rng = np.random.default_rng(2)
    hard = rng.random(200)
    one, other = paths(*(strengths(rng, [0.8, 0.8, 0.4, 0.1], slope, hard=hard) for slope in (0.4, 0.1)))
    found, _ = distance([one], [other], "bits", 0.5)
    assert found.value == pytest.approx(0.5 * 0.3, abs=0.03) and found.ci95[0] > 0
    assert found.num_clusters == 200


def test_of_planted_nulls_about_five_percent_are_called_differences():
    called = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        of = [strengths(rng, [0.8, 0.8, 0.45, 0.1], 0.2, num=60) for _ in range(2)]
        found, _ = distance(*([path(strength, range(60), 3, BOOTSTRAP)] for strength in of), "bits", 0.5)
        called += not found.ci95[0] <= 0 <= found.ci95[1]
    assert called <= 5 + 2.5 * np.sqrt(100 * 0.05 * 0.95)


def test_a_level_that_a_path_does_not_reach_is_empty_and_one_that_draws_miss_has_no_interval():
    rng = np.random.default_rng(3)
    hard = rng.random(200)
    low = strengths(rng, [0.8, 0.8, 0.4, 0.1], 0.2, hard=hard)
    one, other = paths(low, strengths(rng, [0.8, 0.8, 0.7, 0.6], 0.2, hard=hard))
    assert distance([one], [other], "bits", 0.5)[0] is None
    (barely,) = paths(strengths(rng, [0.8, 0.8, 0.7, 0.4], 0.2, hard=hard))
    found, missed = distance([one], [barely], "bits", barely.lowest + 1e-9)
    assert found is not None and found.ci95 is None and missed > 0.3


def test_several_seeds_are_compared_by_their_means_with_seeds_in_the_interval():
    # Effects at strength 1 of .3 and .5 (mean .4) against .1: at strength .5 about .2 - .05 = .15; seeds are .1 apart
    rng = np.random.default_rng(5)
    hard = rng.random(200)
    one, two, other = paths(*(strengths(rng, [0.8, 0.8, 0.4, 0.1], slope, hard=hard) for slope in (0.3, 0.5, 0.1)))
    alone, _ = distance([one], [other], "bits", 0.5)
    both, _ = distance([one, two], [other], "bits", 0.5)
    assert both.value == pytest.approx(0.15, abs=0.03)
    assert both.ci95[1] - both.ci95[0] > 3 * (alone.ci95[1] - alone.ci95[0])  # t of 1 degree of freedom: 12.7
