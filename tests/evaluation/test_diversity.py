import math

import numpy as np
import pytest

from detoxlens.evaluation.diversity import adjusted_distinct, distinct_by_prompt, num_ngrams, repetition


def test_expectation_adjusted_distinct_by_hand():
    # 3 distinct of 4, V = 10: 10 (1 - .9 ** 4) = 3.439 expected
    assert adjusted_distinct(3, 4, 10) == pytest.approx(3 / 3.439)
    assert adjusted_distinct(0, 0, 10) is None


def test_uniform_draws_score_one_however_many_where_plain_distinct_falls():
    rng = np.random.default_rng(0)
    for num in (50, 200, 1000):
        scores = [adjusted_distinct(len(set(rng.integers(0, 100, num).tolist())), num, 100) for _ in range(200)]
        assert np.mean(scores) == pytest.approx(1, abs=0.01)


def test_possible_ngrams_are_those_that_anyone_has_written():
    assert num_ngrams([[1, 2, 1, 2], [2, 3]], 2) == 3  # 12 21 23


def test_values_by_prompt_have_the_score_as_mean_and_the_jackknife_as_variance():
    texts = {"a": [[1, 2, 3]], "b": [[2, 3, 4], [4, 4]], "c": [[7]]}
    prompts, values = distinct_by_prompt(texts, 1, 10)
    # distinct {1, 2, 3, 4, 7} = 5 of 9; without a {2, 3, 4, 7} 4 of 6, without b 4 of 4, without c 4 of 8
    without = [adjusted_distinct(d, c, 10) for d, c in ((4, 6), (4, 4), (4, 8))]
    assert prompts == ["a", "b", "c"]
    assert values.mean() == pytest.approx(adjusted_distinct(5, 9, 10))
    jackknife = 2 / 3 * sum((w - np.mean(without)) ** 2 for w in without)
    assert np.var(values, ddof=1) / 3 == pytest.approx(jackknife)


def test_without_any_ngram_there_is_no_variety():
    assert distinct_by_prompt({"a": [[1]], "b": [[]]}, 2, 5) is None


def test_repetition_is_what_a_completion_has_written_before():
    assert repetition([1, 2, 1, 2, 1, 2], 2) == pytest.approx(3 / 5)  # 12 21 12 21 12
    assert repetition([1, 2, 3], 2) == 0
    assert math.isnan(repetition([1], 2))
