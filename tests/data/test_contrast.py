"""Civil and hostile replies to the same turns."""

import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.data.contrast import Contrast, contrasts


def dialogue(name: str, *turns: str) -> Dialogue:
    return Dialogue(dialogue_id=name, target="ZORGONS", source="sample", split="train", turns=turns)


TWO = [dialogue("a", "h1", "r1", "h2", "r2"), dialogue("b", "k1", "s1")]


def test_the_hostile_reply_is_what_the_hater_says_next_and_behind_the_last_the_next_dialogues_first():
    assert contrasts(TWO, at_most=9) == [
        Contrast(turn="h1", civil="r1", hostile="h2"),
        Contrast(turn="h2", civil="r2", hostile="k1"),
        Contrast(turn="k1", civil="s1", hostile="h1"),
    ]


def test_of_too_many_so_many_are_taken_at_equal_distances():  # of 10: 0, 3 (10 / 3), 6 (20 / 3)
    many = [dialogue(str(i), f"h{i}", f"r{i}") for i in range(10)]
    assert [c.turn for c in contrasts(many, at_most=3)] == ["h0", "h3", "h6"]


def test_without_dialogues_there_is_nothing_to_compare():
    with pytest.raises(UserError, match="no training dialogues"):
        contrasts([], at_most=3)
