"""The text of single tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> tuple[str, ...]:
    """The text that each token adds, special tokens by name; half a character shows as U+FFFD."""
    whole = [tokenizer.decode(ids[: i + 1]) for i in range(len(ids))]
    pieces = []
    for before, after, token in zip(["", *whole], whole, ids, strict=False):
        # Decoding alone would lose SentencePiece's leading space; a prefix may end inside a character.
        pieces.append(after[len(before) :] if after.startswith(before) else tokenizer.decode([token]))
    return tuple(pieces)
