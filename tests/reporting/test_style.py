import numpy as np
import pytest

from detoxlens.reporting.examples import choose
from detoxlens.reporting.figures import survival
from detoxlens.reporting.style import GREY, PALETTE, colours, spread
from tests.reporting.test_curves import CONFIG


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([1.0, 5.0], [1.0, 5.0]),  # far enough apart: nothing moves
        ([3.0, 3.0], [2.5, 3.5]),  # pushed apart, half each
        ([0.0, 0.0], [0.0, 1.0]),  # the lower limit holds
        ([10.0, 10.0, 10.0], [8.0, 9.0, 10.0]),  # the upper limit holds
        ([], []),
    ],
)
def test_labels_are_moved_apart_as_little_as_possible(positions, expected):
    assert spread(positions, 1.0, 0.0, 10.0) == pytest.approx(expected)


def test_it_is_grey_and_no_colour_repeats():
    assert colours(["it", "ft", "rl"]) == {"it": GREY, "ft": PALETTE[0], "rl": PALETTE[1]}
    assert len(set(PALETTE)) == len(PALETTE)


def test_survival_is_the_share_strictly_above():
    x, above = survival(np.array([0.25, 0.5, 0.5, 1.0]))
    assert dict(zip(x.tolist(), above.tolist(), strict=True)) == {0.0: 1.0, 0.25: 0.75, 0.5: 0.25, 1.0: 0.0}


def test_examples_are_half_toxic_in_the_order_of_hashes():
    toxicity = {("a", 0): 0.1, ("b", 0): 0.9, ("c", 0): 0.2, ("d", 0): 0.8, ("e", 0): 0.3, ("f", 0): 0.7}
    assert choose(toxicity, set(toxicity), 4, CONFIG) == [("b", 0), ("d", 0), ("a", 0), ("c", 0)]


def test_examples_fill_up_when_one_half_is_short():
    toxicity = {("a", 0): 0.1, ("b", 0): 0.9, ("c", 0): 0.2, ("d", 0): 0.2}
    assert choose(toxicity, set(toxicity), 4, CONFIG) == [("b", 0), ("a", 0), ("c", 0), ("d", 0)]
    assert choose(toxicity, {("b", 0)}, 4, CONFIG) == [("b", 0)]
    assert choose(toxicity, set(), 4, CONFIG) == [] and choose(toxicity, set(toxicity), 0, CONFIG) == []
