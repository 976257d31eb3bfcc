"""Entropy, dependence and its excess: hand arithmetic."""

import numpy as np
import pytest

from detoxlens.attribution.entropy import (
    MEASURES,
    dependence_excess_bits,
    mean_over_steps,
    normalized_prompt_entropy,
    padded,
    prompt_dependence,
    prompt_entropy_bits,
)

ROW = [0.1, 0.3, 0.2, 0.4]  # three prompt tokens, one generated


def at(measure, row, num_prompt, keep=None):
    """The measure at the step whose row this is, the rows before it all on the prompt's first token."""
    before = [[1.0] + [0.0] * (num_prompt - 1 + t) for t in range(len(row) - num_prompt)]
    return measure(padded([*before, row], num_prompt), num_prompt, keep)[-1]


def test_entropy_of_halves_and_quarters():
    assert at(prompt_entropy_bits, [0.5, 0.25, 0.25], 3) == pytest.approx(1.5)  # .5 * 1 + 2 * .25 * 2
    assert at(prompt_entropy_bits, [2, 2, 2, 2], 4) == pytest.approx(2.0)  # normalised first
    assert at(prompt_entropy_bits, [0.0, 3.0], 2) == 0.0
    assert np.isnan(at(prompt_entropy_bits, [0.0, 0.0], 2))


def test_prompt_entropy_is_taken_over_the_prompt_renormalised():
    # (1/6, 1/2, 1/3): 1/6 * 2.585 + 1/2 * 1 + 1/3 * 1.585 = 1.4591
    assert at(prompt_entropy_bits, ROW, 3) == pytest.approx(1.459148, abs=1e-6)
    assert at(normalized_prompt_entropy, ROW, 3) == pytest.approx(1.459148 / 1.584963, abs=1e-6)


def test_a_masked_template_token_is_as_if_it_had_not_been_there():
    keep = [False, True, True]  # (.6, .4): .6 * .737 + .4 * 1.322 = .971; dependence .5 / .9
    assert at(prompt_entropy_bits, ROW, 3, keep) == pytest.approx(0.970951, abs=1e-6)
    assert at(normalized_prompt_entropy, ROW, 3, keep) == pytest.approx(0.970951, abs=1e-6)
    assert at(prompt_dependence, ROW, 3, keep) == pytest.approx(5 / 9)


def test_prompt_dependence_is_the_mass_on_the_prompt():
    assert at(prompt_dependence, ROW, 3) == pytest.approx(0.6)
    assert at(prompt_dependence, ROW[:3], 3) == 1.0  # first generated token: nothing but prompt


def test_the_excess_compares_dependence_with_the_prompts_share_of_the_tokens():
    # Step 2: 3 prompt tokens of 4. .6 / .75 = .8: -.322 bits; uniform: 0; half of the tokens with all mass: 1 bit
    assert at(dependence_excess_bits, ROW, 3) == pytest.approx(np.log2(0.8))
    assert at(dependence_excess_bits, [0.25] * 4, 3) == 0.0
    assert at(dependence_excess_bits, [0.5, 0.5, 0.0, 0.0], 2) == pytest.approx(1.0)
    assert at(dependence_excess_bits, ROW[:3], 3) == 0.0  # the first step: nothing else to look at
    # Two of the prompt's tokens count, of three in all: .5 / .9 over 2 / 3
    assert at(dependence_excess_bits, ROW, 3, [False, True, True]) == pytest.approx(np.log2((5 / 9) / (2 / 3)))
    assert np.isnan(at(dependence_excess_bits, [0.0, 0.0, 1.0], 2))  # no mass: the logarithm has no value


def test_one_prompt_token_has_no_normalised_entropy():
    assert at(prompt_entropy_bits, [0.7, 0.3], 1) == 0.0
    assert np.isnan(at(normalized_prompt_entropy, [0.7, 0.3], 1))
    assert np.isnan(at(normalized_prompt_entropy, ROW, 3, [False, True, False]))


def test_a_prompt_without_mass_has_no_entropy():
    assert np.isnan(at(prompt_entropy_bits, [0.0, 0.0, 1.0], 2))
    assert at(prompt_dependence, [0.0, 0.0, 1.0], 2) == 0.0
    assert np.isnan(at(prompt_dependence, [1.0, 0.0], 1, [False]))


def test_every_step_is_measured_as_if_it_were_alone():
    rng = np.random.default_rng(0)
    rows = [rng.dirichlet(np.ones(5 + t)).tolist() for t in range(6)]
    for measure in MEASURES.values():
        together = measure(padded(rows, 5), 5)
        assert together.tolist() == pytest.approx([at(measure, row, 5) for row in rows])


def test_what_a_word_owes_to_itself_is_no_use_of_what_was_before():
    # Words: one prompt word .4, one generated word before .35, the word itself .25: dependence .4 / .75
    rows = padded([[0.9, 0.1], [0.4, 0.35, 0.25]], 1)
    assert prompt_dependence(rows, 1).tolist() == pytest.approx([1.0, 0.4 / 0.75])


def test_a_sequence_is_the_mean_of_its_defined_steps():
    assert mean_over_steps(np.array([1.0, np.nan, 2.0])) == 1.5
    assert mean_over_steps(np.array([np.nan])) is None
