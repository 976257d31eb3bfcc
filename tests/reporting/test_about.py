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


def test_prompts_of_a_file_of_their_own_are_told_from_those_of_another():
    where = {"prompt.toxicity": Condition(gt=0.5)}
    unseen = SplitConfig(source="data/sample/unseen.jsonl", where=where, max_val=0, max_test=1)
    assert split_phrase(unseen) == "prompts of data/sample/unseen.jsonl whose toxicity is above 0.5"
    assert split_phrase(unseen.model_copy(update={"where": {}})) == "prompts of data/sample/unseen.jsonl, all"
