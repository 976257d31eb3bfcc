"""Divergences in bits: hand arithmetic."""

import math

import pytest

from detoxlens.attribution.divergence import jensen_shannon_bits, kl_bits


def test_kl_of_two_coins():
    # .5 log2(.5 / .25) + .5 log2(.5 / .75) = .5 - .5 * .58496 = .20752
    assert kl_bits([1, 1], [0.25, 0.75]) == pytest.approx(0.207519, abs=1e-6)
    assert kl_bits([0.25, 0.75], [0.5, 0.5]) == pytest.approx(0.188722, abs=1e-6)
    assert kl_bits([1, 0], [0.5, 0.5]) == 1.0
    assert kl_bits([0.5, 0.5], [1, 0]) == math.inf


def test_jensen_shannon_is_symmetric_and_between_0_and_1():
    assert jensen_shannon_bits([1, 0], [0, 1]) == 1.0
    assert jensen_shannon_bits([0.2, 0.8], [0.2, 0.8]) == 0.0
    # middle (.75, .25): (log2(4/3) + .5 log2(2/3) + .5 log2(2)) / 2 = (.41504 - .29248 + .5) / 2
    assert jensen_shannon_bits([1, 0], [0.5, 0.5]) == pytest.approx(0.311278, abs=1e-6)
    assert jensen_shannon_bits([0.5, 0.5], [1, 0]) == pytest.approx(0.311278, abs=1e-6)


def test_weights_without_mass_are_refused():
    with pytest.raises(ValueError, match="these 2 weights sum to 0"):
        kl_bits([0, 0], [1, 1])
