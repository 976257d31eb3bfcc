"""The text of single tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detoxlens.common.records import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> tuple[str, ...]:
    """The text that each token adds, special tokens by name; joined they are the text.

    A character of several tokens stands with the last of them; half a one at the end shows as U+FFFD.
    """
    pieces, shown = [], ""
    for i, token in enumerate(ids):
        whole = tokenizer.decode(ids[: i + 1])
        known = whole if i == len(ids) - 1 else whole.rstrip("\ufffd")  # a prefix may end inside a character
        if known.startswith(shown):  # decoding the token alone would lose SentencePiece's leading space
            pieces.append(known[len(shown) :])
            shown = known
        else:
            pieces.append(tokenizer.decode([token]))
            shown = whole
    return tuple(pieces)


class Pieces:
    """The texts of completions and their prompts, each decoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], tuple[str, ...]] = {}

    def of(self, row: Completion) -> dict[str, tuple[str, ...]]:
        """The two columns of the record `Attribution`."""
        return {"prompt_pieces": self._text(row.prompt_ids), "completion_pieces": self._text(row.completion_ids)}

    def _text(self, ids: tuple[int, ...]) -> tuple[str, ...]:
        if ids not in self._known:
            self._known[ids] = pieces_of(self._tokenizer, ids)
        return self._known[ids]
