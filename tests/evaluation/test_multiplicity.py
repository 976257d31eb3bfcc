import numpy as np
import pytest
from scipy import stats

from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.multiplicity import compared_json, holm, p_value
from detoxlens.evaluation.seeds import Seeds, over_seeds


def test_the_smallest_p_counts_as_often_as_there_are_comparisons():
    # sorted .01, .03, .04: 3 * .01 = .03; 2 * .03 = .06; 1 * .04, not below the one before: .06
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0} and holm({}) == {}


def test_p_is_below_five_percent_where_the_interval_excludes_0_and_only_there():
    edge = [p_value(Estimate(1.0, (lo, 2.0), 100)) for lo in (1e-9, -1e-9)]
    assert edge[0] < 0.05 < edge[1] and edge == pytest.approx([0.05, 0.05])
    assert p_value(Estimate(-1.0, (-2.0, 1e-9), 100)) == pytest.approx(0.05)
    assert p_value(Estimate(0.0, (-1.0, 1.0), 100)) == 1 and p_value(Estimate(0.0, (0.0, 0.0), 100)) == 1
    assert p_value(Estimate(1.0, None, 1)) is None
    assert p_value(Estimate(0.0, (-0.8, 0.8), 1)) is None  # an exact interval of one prompt, which t has none of
    assert p_value(Estimate(0.5, (0.5, 0.5), 100)) == 0  # no spread at all


def test_p_is_that_of_a_t_test():
    # differences with mean 1 and SD 2 over 16 prompts: t = 1 / (2 / 4) = 2 with 15 degrees of freedom
    half = stats.t.ppf(0.975, 15) * 0.5
    assert p_value(Estimate(1.0, (1 - half, 1 + half), 16)) == pytest.approx(2 * stats.t.sf(2, 15))


def test_p_over_seeds_has_the_seeds_degrees_of_freedom():
    # 1, 2, 3 and nothing by prompts: t = 2 / (1 / sqrt 3) with 2 degrees of freedom
    values = (1.0, 2.0, 3.0)
    found = over_seeds(Seeds(values, np.zeros((3, 10))), 150)
    assert found.df == 2
    assert p_value(found) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert compared_json(found)["p_value"] == p_value(found)
