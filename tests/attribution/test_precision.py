"""How far a short number format is from float32: hand arithmetic."""

import dataclasses

import pytest

from detoxlens.attribution.precision import precision_summary
from detoxlens.attribution.result import SequenceAttribution


def attribution(scores, probs) -> SequenceAttribution:
    return SequenceAttribution(
        prompt_ids=(5, 9),
        completion_ids=(7,) * len(scores),
        method="input_x_gradient",
        target="probability",
        status="ok",
        scores=tuple(map(tuple, scores)),
        token_prob=tuple(probs),
    )


def test_differences_of_scores_entropies_and_probabilities():
    exact = attribution([[0.5, 0.5], [0.25, 0.25, 0.5]], [0.9, 0.5])
    short = attribution([[0.75, 0.25], [0.25, 0.25, 0.5]], [0.8, 0.5])
    found = precision_summary([short], [exact], dtype="bfloat16")
    # scores: .25, -.25, 0, 0, 0;  entropy: .811278 - 1 and 0;  probability: -.1 and 0
    assert found["score"] == pytest.approx({"max": 0.25, "median": 0.0, "mean": 0.0})
    assert found["prompt_entropy_bits"] == pytest.approx(
        {"max": 0.188722, "median": 0.094361, "mean": -0.094361}, abs=1e-6
    )
    assert found["token_prob"] == pytest.approx({"max": 0.1, "median": 0.05, "mean": -0.05})
    assert (found["dtype"], found["num_sequences"], found["num_left_out"]) == ("bfloat16", 1, 0)


def test_a_sequence_without_scores_in_one_of_the_two_is_counted_not_compared():
    exact = attribution([[0.5, 0.5]], [0.9])
    broken = dataclasses.replace(exact, status="non_finite", scores=None, token_prob=None)
    found = precision_summary([broken, exact], [exact, exact], dtype="bfloat16")
    assert (found["num_sequences"], found["num_left_out"], found["score"]["max"]) == (1, 1, 0.0)
    assert precision_summary([], [], dtype="bfloat16")["score"] is None
