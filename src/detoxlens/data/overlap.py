"""Texts of one file that stand in the dialogues of another: would prompts from it have been trained on?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.data.dialoconan import read_dialoconan
from detoxlens.data.near_copies import num_near_copies
from detoxlens.data.sources import local_file, read_csv
from detoxlens.data.splits import normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Overlap(num_texts=3709, num_verbatim=973, num_near_copies=1744)"""

    num_texts: int
    """Distinct ones, but for case and white space."""
    num_verbatim: int
    """Those that are a hater's turn, but for case and white space."""
    num_near_copies: int
    """Those of whose word 5-grams at least half stand in hater's turns; the verbatim ones among them."""


def overlap(texts: Collection[str], hater_turns: Collection[str]) -> Overlap:
    """How many of these texts stand among a hater's turns."""
    distinct = {normalize(text): text for text in texts if normalize(text)}
    turns = {normalize(turn) for turn in hater_turns}
    return Overlap(
        num_texts=len(distinct),
        num_verbatim=len(distinct.keys() & turns),
        num_near_copies=num_near_copies(distinct.values(), hater_turns),
    )


def overlap_of_files(root: Path, texts: str, column: str, dialogues: str) -> Overlap:
    """Of a CSV's column with the hater's turns of a file in DialoCONAN's format; every dialogue, whatever its split.

    Args:
        root: what relative paths start from.
        texts: path or address of the CSV.
        column: of its texts.
        dialogues: path or address of the dialogues.

    Raises:
        UserError: a file cannot be read, has no such column, or no text in it.
    """
    with local_file(texts, root, key="TEXTS", form="csv") as path:
        found = [cells[column] for _, cells in read_csv(path, texts, [column])]
    if not any(text.strip() for text in found):
        raise UserError(f"{texts} holds no text in the column {column!r}; name another with --column.")
    with local_file(dialogues, root, key="--dialogues", form="csv") as path:
        conversations = read_dialoconan(path, dialogues).conversations
    return overlap(found, [turn for of in conversations for turn in of.turns[0::2]])
