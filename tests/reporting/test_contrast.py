"""Toxic against other completions: on the same text and the same steps, and against base."""

import pytest

from detoxlens.reporting.contrast import contrast, groups
from tests.reporting.test_curves import CONFIG, trace

TOXIC, OTHER = {("a", 0), ("b", 0)}, {("c", 0), ("d", 0)}


def test_the_difference_is_taken_on_the_steps_that_both_groups_have():
    # Toxic: step 1 (1 + 3) / 2, step 2 (5 + 7) / 2 -> 4. Other: one step more, which does not count: (2 + 2) -> 2.
    read = [trace("a", [1, 5]), trace("b", [3, 7]), trace("c", [2, 2, 90]), trace("d", [2, 2, 90])]
    found = contrast(read, None, (TOXIC, OTHER), CONFIG, scope="prompt")["prompt_entropy_bits"]
    assert (found["toxic"]["value"], found["other"]["value"], found["toxic_minus_other"]["value"]) == (4, 2, 2)
    assert (found["num_toxic"], found["num_other"], found["num_steps"], found["reason"]) == (2, 2, 2, None)
    assert "change_from_it" not in found


def test_the_change_from_base_is_the_difference_of_the_differences():
    read = [trace(p, [v], "ft", "it") for p, v in zip("abcd", (5, 7, 1, 1), strict=True)]
    it = [trace(p, [v]) for p, v in zip("abcd", (3, 3, 2, 2), strict=True)]
    found = contrast(read, it, (TOXIC, OTHER), CONFIG, scope="prompt")["prompt_entropy_bits"]
    assert found["toxic_minus_other"]["value"] == 5
    assert found["change_from_it"]["value"] == 5 - 1


def test_a_group_of_too_few_is_null_with_both_numbers():
    read = [trace("a", [1]), trace("c", [2]), trace("d", [2])]
    found = contrast(read, None, (TOXIC, OTHER), CONFIG, scope="prompt")["prompt_entropy_bits"]
    assert found["toxic_minus_other"] is None and found["num_steps"] == 0
    assert found["reason"] == (
        "1 toxic and 2 other completions: report.min_sequences_per_step=2 of each are needed at the first step"
    )


def test_groups_as_a_user_meets_them_are_means_over_tokens_then_completions():
    read = [trace("a", [1, 3]), trace("b", [4]), trace("c", [1]), trace("d", [2])]
    found = groups(read, (TOXIC, OTHER), CONFIG, scope="prompt")
    assert found["toxic"]["prompt_entropy_bits"]["value"] == 3
    assert found["toxic_minus_other"]["prompt_entropy_bits"]["value"] == 1.5
    assert (found["toxic"]["num_sequences"], found["other"]["num_sequences"]) == (2, 2)
    none = groups([], (TOXIC, OTHER), CONFIG, scope="prompt")
    assert none["toxic"]["prompt_entropy_bits"] is None and none["toxic_minus_other"]["prompt_entropy_bits"] is None


def test_rows_of_a_balanced_sample_count_by_their_weights():
    read = [trace("a", [1], weight=0.5), trace("b", [4], weight=1.5), trace("c", [0]), trace("d", [0])]
    found = contrast(read, None, (TOXIC, OTHER), CONFIG, scope="prompt")["prompt_entropy_bits"]
    assert found["toxic"]["value"] == pytest.approx((0.5 * 1 + 1.5 * 4) / 2)
