"""The pieces of a heat map, joined, are the text: in every tokenizer family, with characters of several tokens."""

import pytest

from detoxlens.attribution.pieces import pieces_of
from tests.data.tokenizers import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["Ferries are slow</s> and calm", "they 🪗 are ünïcode", " rain\n<human>: late", "🪗"])
def test_pieces_joined_are_the_text(family, text):
    tokenizer = FAMILIES[family]()
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    pieces = pieces_of(tokenizer, ids)
    assert len(pieces) == len(ids) and "".join(pieces) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_stands_with_the_last_of_them_and_half_of_one_shows():
    tokenizer = FAMILIES["byte BPE"]()
    ids = tuple(tokenizer("a🪗b", add_special_tokens=False)["input_ids"])
    assert [piece for piece in pieces_of(tokenizer, ids) if piece] == ["a", "🪗", "b"]
    assert "\ufffd" in pieces_of(tokenizer, ids[:3])[-1]
