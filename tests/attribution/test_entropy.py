"""Entropy, dependence: hand arithmetic."""

import pytest

from detoxlens.attribution.entropy import (
    entropy_bits,
    mean_over_steps,
    normalized_prompt_entropy,
    prompt_dependence,
    prompt_entropy_bits,
)

ROW = [0.1, 0.3, 0.2, 0.4]  # three prompt tokens, one generated


def test_entropy_of_halves_and_quarters():
    assert entropy_bits([0.5, 0.25, 0.25]) == pytest.approx(1.5)  # .5 * 1 + 2 * .25 * 2
    assert entropy_bits([2, 2, 2, 2]) == pytest.approx(2.0)  # normalised first
    assert entropy_bits([0.0, 3.0]) == 0.0
    assert entropy_bits([0.0, 0.0]) is None


def test_prompt_entropy_is_taken_over_the_prompt_renormalised():
    # (1/6, 1/2, 1/3): 1/6 * 2.585 + 1/2 * 1 + 1/3 * 1.585 = 1.4591
    assert prompt_entropy_bits(ROW, 3) == pytest.approx(1.459148, abs=1e-6)
    assert normalized_prompt_entropy(ROW, 3) == pytest.approx(1.459148 / 1.584963, abs=1e-6)


def test_a_masked_template_token_is_as_if_it_had_not_been_there():
    keep = [False, True, True]  # (.6, .4): .6 * .737 + .4 * 1.322 = .971; dependence .5 / .9
    assert prompt_entropy_bits(ROW, 3, keep) == pytest.approx(0.970951, abs=1e-6)
    assert normalized_prompt_entropy(ROW, 3, keep) == pytest.approx(0.970951, abs=1e-6)
    assert prompt_dependence(ROW, 3, keep) == pytest.approx(5 / 9)


def test_prompt_dependence_is_the_mass_on_the_prompt():
    assert prompt_dependence(ROW, 3) == pytest.approx(0.6)
    assert prompt_dependence(ROW[:3], 3) == 1.0  # first generated token: nothing but prompt


def test_one_prompt_token_has_no_normalised_entropy():
    assert prompt_entropy_bits([0.7, 0.3], 1) == 0.0
    assert normalized_prompt_entropy([0.7, 0.3], 1) is None
    assert normalized_prompt_entropy(ROW, 3, [False, True, False]) is None


def test_a_prompt_without_mass_has_no_entropy():
    assert prompt_entropy_bits([0.0, 0.0, 1.0], 2) is None
    assert prompt_dependence([0.0, 0.0, 1.0], 2) == 0.0
    assert prompt_dependence([1.0, 0.0], 1, [False]) is None


def test_a_sequence_is_the_mean_of_its_defined_steps():
    assert mean_over_steps([1.0, None, 2.0]) == 1.5
    assert mean_over_steps([None]) is None
