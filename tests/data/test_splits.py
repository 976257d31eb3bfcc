"""Splitting dialogues by connected components of shared text."""

from __future__ import annotations

import random

import pytest

from detoxlens.common.errors import UserError
from detoxlens.data.splits import connected_components, normalize, split_dialogues


def split(dialogues, *, val=0.1, test=0.1, linked_by="all_turns", seed=0):
    return split_dialogues(dialogues, val_fraction=val, test_fraction=test, linked_by=linked_by, seed=seed)


def plain(num, start=0):
    return [(f"hater {i}", f"reply {i}") for i in range(start, start + num)]


def test_components_link_directly_and_through_others():
    #                               0      1      2           3      4: alone
    assert connected_components([["a"], ["b"], ["a", "c"], ["c"], ["d", "d"]]) == [[0, 2, 3], [1], [4]]


def test_components_agree_with_a_slow_closure():
    rng = random.Random(1)
    keys = [[str(rng.randrange(200)) for _ in range(3)] for _ in range(40)]
    groups = [{i} for i in range(len(keys))]
    for i in range(len(keys)):
        for j in range(i):
            if set(keys[i]) & set(keys[j]) and groups[i] is not groups[j]:
                merged = groups[i] | groups[j]
                for k in merged:
                    groups[k] = merged
    expected = {frozenset(group) for group in groups}
    assert {frozenset(component) for component in connected_components(keys)} == expected
    assert len(expected) > 1


def test_fractions_are_met_and_every_dialogue_has_one_split():
    result = split(plain(100), val=0.1, test=0.2)
    assert [result.splits.count(side) for side in ("train", "val", "test")] == [70, 10, 20]


def test_no_turn_is_in_two_splits_and_case_and_white_space_do_not_hide_one():
    rng = random.Random(0)
    words = [f"w{i}" for i in range(900)]
    dialogues = [tuple(rng.choice(words).upper() + " " * rng.randrange(3) for _ in range(4)) for _ in range(120)]
    dialogues += [tuple(turn.lower() for turn in d) for d in dialogues[:40]]
    result = split(dialogues)
    seen = {
        side: {normalize(t) for d, s in zip(dialogues, result.splits, strict=True) if s == side for t in d}
        for side in ("train", "val", "test")
    }
    assert not seen["test"] & seen["train"]
    assert not seen["val"] & seen["train"]
    assert not seen["test"] & seen["val"]
    assert seen["test"] and seen["val"]


def test_linked_by_hater_turns_lets_a_reply_be_shared_but_no_hater_turn():
    dialogues = [(f"hater {i % 50}", "always the same reply") for i in range(100)]
    result = split(dialogues, linked_by="hater_turns")
    assert result.component_sizes == (2,) * 50
    sides = {}
    for (hater, _), side in zip(dialogues, result.splits, strict=True):
        assert sides.setdefault(hater, side) == side
    with pytest.raises(UserError, match=r"form 1 component\(s\), the largest of 100 dialogues.*dialogue_linked_by"):
        split(dialogues, linked_by="all_turns")


def test_a_giant_component_goes_to_train():
    giant = [("shared", f"reply g{i}") for i in range(15)]  # would fill test's 20 places three quarters full
    result = split(giant + plain(85), val=0.2, test=0.2)
    assert set(result.splits[:15]) == {"train"}
    assert result.component_sizes[0] == 15
    assert [result.splits.count(side) for side in ("train", "val", "test")] == [60, 20, 20]


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_the_file():
    dialogues = plain(50)
    first = dict(zip(dialogues, split(dialogues).splits, strict=True))
    backwards = dict(zip(dialogues[::-1], split(dialogues[::-1]).splits, strict=True))
    assert first == backwards
    assert first != dict(zip(dialogues, split(dialogues, seed=1).splits, strict=True))


def test_too_few_dialogues_name_the_empty_split():
    with pytest.raises(UserError, match="of 1 dialogues none is left for train"):
        split(plain(1))
    with pytest.raises(UserError, match="of 2 dialogues none is left for train"):
        split(plain(2))
    assert sorted(split(plain(3)).splits) == ["test", "train", "val"]


def test_versions_of_one_pair_stay_in_one_split():
    dialogues = [(f"hostile {i}", f"calm {i}") for i in range(60)]
    versions = [f"EN{i % 30}" for i in range(60)]  # i and i + 30 are one pair, in words of their own
    found = split_dialogues(
        dialogues, val_fraction=0.2, test_fraction=0.2, linked_by="all_turns", seed=0, versions_of=versions
    )
    assert found.splits[:30] == found.splits[30:] and set(found.splits) == {"train", "val", "test"}
    assert found.component_sizes == (2,) * 30


@pytest.mark.parametrize("other", ["Cafe\u0301  au\nlait", "CAF\u00c9 au lait", "\uff43af\u00e9 a\u200bu lait\ufeff"])
def test_forms_of_one_text_are_the_same_text(other):
    assert normalize(other) == normalize("caf\u00e9 au lait")
