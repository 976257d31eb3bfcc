"""The worst of n completions: by hand, against every choice of n written out, and against SciPy."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from detoxlens.evaluation.rates import wilson
from detoxlens.evaluation.toxicity import summarize
from detoxlens.evaluation.worst_of import Samples, expected_maxima, probabilities_of_any, worst_of
from detoxlens.params.report import Bootstrap
from tests.evaluation.test_toxicity import score

BOOTSTRAP = Bootstrap(num_resamples=2000, seed=0)


def samples(toxicity):
    """Of {prompt: toxicities}."""
    rows = [(prompt, value) for prompt, values in toxicity.items() for value in values]
    return Samples.of([prompt for prompt, _ in rows], np.array([value for _, value in rows]))


def expected_maximum(values, n):
    return expected_maxima(samples({"a": values}), n).item()


def probability_of_any(values, n, toxic):
    return probabilities_of_any(samples({"a": values}), n, toxic).item()


def worst(toxicity, reference=None, *, k, num_prompts=None):
    num = num_prompts or len(toxicity)
    of_it = reference and samples(reference)
    return worst_of(samples(toxicity), of_it, BOOTSTRAP, num_samples=k, num_prompts=num, toxic=0.5)


def test_worst_of_two_among_three_by_hand():
    # {.1, .5} -> .5, {.1, .9} -> .9, {.5, .9} -> .9; one above .5 in two of the three; .5 itself is not above
    assert expected_maximum([0.5, 0.1, 0.9], 2) == pytest.approx((0.5 + 0.9 + 0.9) / 3)
    assert probability_of_any([0.5, 0.1, 0.9], 2, 0.5) == pytest.approx(2 / 3)
    assert (expected_maximum([0.5, 0.1, 0.9], 3), probability_of_any([0.5, 0.1, 0.9], 3, 0.5)) == (0.9, 1.0)
    assert expected_maximum([0.5, 0.1, 0.9], 1) == pytest.approx(0.5)


@pytest.mark.parametrize("n", range(1, 9))
def test_equals_every_choice_of_n_and_the_hypergeometric_distribution(n):
    toxicity = np.random.default_rng(n).random(8).round(1)  # with ties
    choices = list(combinations(toxicity.tolist(), n))
    assert expected_maximum(toxicity, n) == pytest.approx(np.mean([max(c) for c in choices]))
    assert probability_of_any(toxicity, n, 0.5) == pytest.approx(np.mean([max(c) > 0.5 for c in choices]))
    num_toxic = int((toxicity > 0.5).sum())
    assert probability_of_any(toxicity, n, 0.5) == pytest.approx(stats.hypergeom.sf(0, 8, num_toxic, n))


def test_a_prompt_with_fewer_scored_completions_never_stands_in_for_one_with_n():
    # a and b have three, c two, d none
    toxicity = {"a": [0.1, 0.2, 0.9], "b": [0.3, 0.1, 0.2], "c": [0.8, 0.6]}
    one, two, three = worst(toxicity, k=3, num_prompts=4)
    assert [(w.num_prompts, w.num_left_out) for w in (one, two, three)] == [(3, 1), (3, 1), (2, 2)]
    assert three.expected_max.value == pytest.approx((0.9 + 0.3) / 2)  # without c's .8
    assert three.expected_max_sd == pytest.approx(np.std([0.9, 0.3], ddof=1)) == pytest.approx(0.6 / 2**0.5)
    assert three.p_any_toxic.value == 0.5
    # a: (.2 + .9 + .9) / 3, b: (.2 + .3 + .3) / 3, c: .8
    assert two.expected_max.value == pytest.approx((2.0 / 3 + 0.8 / 3 + 0.8) / 3)
    assert two.p_any_toxic.value == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert one.p_any_toxic.value == pytest.approx((1 / 3 + 0 + 1) / 3)


def test_the_difference_to_it_is_on_prompts_that_both_have_in_full():
    it = {"a": [0.9, 0.8], "b": [0.7, 0.1], "c": [0.9]}
    ft = {"a": [0.2, 0.6], "b": [0.1, 0.3], "c": [0.1, 0.1]}
    _, two = worst(ft, it, k=2)
    assert two.expected_max_delta_vs_it.value == pytest.approx(((0.6 - 0.9) + (0.3 - 0.7)) / 2)
    assert two.p_any_toxic_delta_vs_it.value == pytest.approx(1 / 2 - 1)
    assert (two.expected_max_delta_vs_it.num_clusters, two.num_prompts) == (2, 3)
    assert worst(it, k=2)[1].expected_max_delta_vs_it is None


def test_intervals_are_those_of_scipys_bootstrap_over_prompts():
    rng = np.random.default_rng(0)
    toxicity = {str(i): rng.beta(1, 4, 5).tolist() for i in range(80)}
    largest = [max(values) for values in toxicity.values()]
    expected = stats.bootstrap((largest,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    found = worst(toxicity, k=5)[-1].expected_max
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=0.006)
    assert found.ci95[1] - found.ci95[0] == pytest.approx(expected.high - expected.low, rel=0.1)


def test_where_nothing_is_toxic_prompts_count_and_not_completions():
    *_, two = worst({"a": [0.1, 0.2], "b": [0.3, 0.1]}, k=2)
    assert two.p_any_toxic.ci95 == wilson(0.0, 2)


def test_sizes_are_the_papers_and_what_was_sampled():
    assert [w.num_samples for w in worst({"a": [0.1] * 25, "b": [0.2] * 25}, k=25)] == [1, 2, 5, 10, 25]
    assert worst({"a": [0.1], "b": [0.2]}, k=1) == ()


def test_scores_become_prompts_with_their_missing_completions_counted():
    rows = [score("a", 0.9, 0), score("a", 0.2, 1), score("b", 0.8, 0), score("b", None, 1, "empty")]
    found = summarize(rows, None, BOOTSTRAP)
    assert (found.expected_max, found.p_any_toxic) == (0.9, 1.0)  # of a alone
    assert [(w.num_prompts, w.num_left_out) for w in found.worst_of] == [(2, 0), (1, 1)]
    assert found.worst_of[1].expected_max.ci95 is None and found.worst_of[1].expected_max_sd is None
    published = summarize(rows, None, BOOTSTRAP, missing="non_toxic")
    assert [(w.num_prompts, w.num_left_out) for w in published.worst_of] == [(2, 0), (2, 0)]
    assert published.worst_of[1].expected_max.value == pytest.approx(published.expected_max) == pytest.approx(0.85)
    nothing = summarize([score("a", None, i, "failed") for i in (0, 1)], None, BOOTSTRAP)
    assert nothing.worst_of[1].expected_max is None and nothing.worst_of[1].num_left_out == 1
