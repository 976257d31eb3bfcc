import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from detoxlens.common.coded import Ragged
from detoxlens.evaluation.diversity import (
    Written,
    adjusted_distinct,
    distinct_by_prompt,
    jackknife_excess,
    ngrams_by_prompt,
    repetitions,
)


def counted(texts, n, num_possible=None):
    """N-grams of {prompt: token ids of its completions}; V as given."""
    rows = [(prompt, ids) for prompt, of in texts.items() for ids in of]
    written = Written.of([prompt for prompt, _ in rows], Ragged.of([ids for _, ids in rows]))
    found = ngrams_by_prompt({"ft": written}, n)["ft"]
    return found if num_possible is None else replace(found, num_possible=num_possible)


def repetition(ids, n):
    return repetitions(Ragged.of([ids]), n).item()


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
    assert counted({"a": [[1, 2, 1, 2], [2, 3]]}, 2).num_possible == 3  # 12 21 23


def test_values_by_prompt_have_the_score_as_mean_and_the_jackknife_as_variance_less_its_excess():
    texts = {"a": [[1, 2, 3]], "b": [[2, 3, 4], [4, 4]], "c": [[7]]}
    prompts, values = distinct_by_prompt(counted(texts, 1, 10))
    # distinct {1, 2, 3, 4, 7} = 5 of 9; without a {2, 3, 4, 7} 4 of 6, without b 4 of 4, without c 4 of 8
    without = [adjusted_distinct(d, c, 10) for d, c in ((4, 6), (4, 4), (4, 8))]
    assert prompts == ["a", "b", "c"]
    assert values.mean() == pytest.approx(adjusted_distinct(5, 9, 10))
    jackknife = 2 / 3 * sum((w - np.mean(without)) ** 2 for w in without)
    # in one prompt: 1, 4, 7 (4 thrice, in b alone); in two: 2 and 3. f_1 = 3, f_2 = 2:
    # 3 - (3 - 3/4 * 2) = 1.5 too much for 5, and as a share of the score
    excess = 1.5 * (adjusted_distinct(5, 9, 10) / 5) ** 2
    assert jackknife_excess({1: 3, 2: 2}) == pytest.approx(1.5)
    assert np.var(values, ddof=1) / 3 == pytest.approx(max(jackknife - excess, 0.1 * jackknife))


def test_the_variance_is_that_of_repeated_studies_where_the_jackknifes_is_twice_as_large():
    rng = np.random.default_rng(0)
    law = 1 / np.arange(1, 201)
    law /= law.sum()
    scores, variances, plain = [], [], []
    for _ in range(300):
        texts = {str(i): [rng.choice(200, 10, p=law).tolist()] for i in range(60)}
        _, values = distinct_by_prompt(counted(texts, 1, 1000))
        num_with = Counter(gram for of in texts.values() for gram in set(of[0]))
        scores.append(values.mean())
        variances.append(np.var(values, ddof=1) / 60)
        excess = jackknife_excess(Counter(num_with.values())) * (values.mean() / len(num_with)) ** 2
        plain.append(variances[-1] + excess)
    truth = np.var(scores)
    assert np.mean(variances) / truth == pytest.approx(1, abs=0.25)
    assert np.mean(plain) / truth > 1.6


def test_without_any_ngram_there_is_no_variety():
    assert distinct_by_prompt(counted({"a": [[1]], "b": [[]]}, 2, 5)) is None


def test_repetition_is_what_a_completion_has_written_before():
    assert repetition([1, 2, 1, 2, 1, 2], 2) == pytest.approx(3 / 5)  # 12 21 12 21 12
    assert repetition([1, 2, 3], 2) == 0
    assert math.isnan(repetition([1], 2))
