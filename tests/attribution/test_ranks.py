"""Spearman's rank correlation: by hand, and against SciPy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from detoxlens.attribution.ranks import mean_rank_correlation, rank_correlation, rank_products


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / 3**0.5)  # ranks 1.5 1.5 3 against 1 2 3
    assert rank_correlation([1, 1], [1, 2]) is None


def test_the_mean_of_each_column_of_products_is_scipys_correlation():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (40, 3)).astype(float), rng.normal(size=(40, 3))  # many equals on one side
    b[:, 0] += a[:, 0]
    expected = [spearmanr(a[:, j], b[:, j]).statistic for j in range(3)]
    assert rank_products(a, b).mean(0).tolist() == pytest.approx(expected)


def test_a_missing_value_takes_its_row_out_of_its_column_alone():
    a, b = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, 3.0]]), np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
    found = rank_products(a, b)
    assert found[:, 0].mean() == pytest.approx(1.0)
    assert np.isnan(found[1, 1]) and np.nanmean(found[:, 1]) == pytest.approx(1.0)  # two rows are left
    assert np.isnan(rank_products(np.ones((3, 1)), b[:, :1])).all()  # constant


def test_two_methods_are_compared_on_the_prompts_tokens_of_each_generated_one():
    ours, theirs = [[0.1, 0.2, 0.7], [0.3, 0.2, 0.1, 0.4]], [[0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4]]
    assert mean_rank_correlation(ours, theirs, 3) == pytest.approx((1 - 1) / 2)
    assert mean_rank_correlation([[0.5, 0.5]], [[0.5, 0.5]], 2) is None
