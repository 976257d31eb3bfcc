"""The cases of the coverage benchmark run, and hold about as often as they should."""

import numpy as np
import pytest

from benchmarks.coverage import cases


@pytest.mark.parametrize("number", range(0, 40, 6))
def test_a_few_studies_of_every_kind_hold_the_truth_more_often_than_not(number):
    case = list(cases())[number]
    rng = np.random.default_rng(number)
    assert sum(case.trial(rng) for _ in range(12)) >= (4 if case.kind == "plainer" else 8)
