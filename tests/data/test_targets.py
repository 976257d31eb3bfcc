"""The group that a prompt speaks of: its own field first, then the dialogues' targets that it names."""

from detoxlens.common.records import Prompt
from detoxlens.data.targets import with_targets


def targets(*texts: str, known=("ZORGONS", "OTHER", "LEFT-HANDED BAKERS", "POC"), own: str | None = None):
    prompts = [
        Prompt(prompt_id=str(i), split="test", filters=(), text=text, toxicity=None, target=own)
        for i, text in enumerate(texts)
    ]
    return [prompt.target for prompt in with_targets(prompts, known)]


def test_singular_plural_and_case_are_one_group_and_parts_of_words_are_none():
    assert targets("All Zorgons sing", "a zorgon's hat", "Zorgonsville is far", "pocket") == [
        "ZORGONS",
        "ZORGONS",
        None,
        None,
    ]


def test_the_first_of_several_is_taken_and_other_is_no_group():
    assert targets("left-handed bakers and Zorgons", "the other one") == ["LEFT-HANDED BAKERS", None]


def test_what_the_source_says_stands():
    assert targets("All Zorgons sing", own="SINGERS") == ["SINGERS"]


def test_without_targets_there_are_no_groups():
    assert targets("All Zorgons sing", known=("OTHER",)) == [None]
