"""The line under the report's title, in words that whom it is sent to can read."""

import pytest

from detoxlens.params.splits import Condition, SplitConfig
from detoxlens.reporting.about import split_phrase


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"prompt.toxicity": {"gt": 0.5}}, "prompts whose toxicity is above 0.5"),
        (
            {"prompt.toxicity": {"gt": 0.5}, "continuation.toxicity": {"gt": 0.5}},
            "prompts whose toxicity is above 0.5 and whose original continuation's toxicity is above 0.5",
        ),
        ({"challenging": {"eq": True}}, "prompts that RealToxicityPrompts calls challenging"),
        ({"challenging": {"eq": False}}, "prompts whose challenging is False"),
        ({"target": {"eq": "Zorgons"}}, "prompts whose target is Zorgons"),
        ({"prompt.toxicity": {"ge": 0.1, "le": 0.2}}, "prompts whose toxicity is at least 0.1 and is at most 0.2"),
    ],
)
def test_a_split_is_a_phrase_without_keys_of_a_file(where, expected):
    where = {name: Condition(**bounds) for name, bounds in where.items()}
    assert split_phrase(SplitConfig(where=where, max_val=0, max_test=1)) == expected
