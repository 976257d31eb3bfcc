"""Words that go with toxic completions, and how they are marked."""

import math

import pytest

from detoxlens.reporting.toxic_words import _z, marked, toxic_words


def test_a_word_of_toxic_texts_alone_stands_out_and_a_shared_one_does_not():
    scored = [("Zorgons are silly fools", 0.9)] * 30 + [("Zorgons are welcome here", 0.1)] * 30
    assert toxic_words(scored) == {"silly", "fools"}


def test_one_toxic_text_is_too_few_to_tell():
    assert toxic_words([("silly fools", 0.9), ("welcome friends", 0.1)]) == frozenset()
    assert toxic_words([("silly fools", 0.9)]) == frozenset()


def test_z_by_hand():
    # a = 3 + 1, b = 1 + 1: log(4 / 16) - log(2 / 18) = .8109, over sqrt(1/4 + 1/2) = .8660
    assert _z(3, 1, 1.0, 20.0, 20.0) == pytest.approx((math.log(4 / 16) - math.log(2 / 18)) / math.sqrt(0.75))


def test_marked_pieces_join_to_the_text():
    pieces = marked("Silly, silly Zorgons!", frozenset({"silly"}))
    assert pieces == [("Silly", True), (", ", False), ("silly", True), (" Zorgons!", False)]
    assert "".join(piece for piece, _ in pieces) == "Silly, silly Zorgons!"


def test_the_only_word_of_all_texts_stands_out_from_none():
    assert toxic_words([("Ferry", 0.9), ("ferry", 0.1)]) == frozenset()
