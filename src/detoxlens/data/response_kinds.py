"""Replies labelled by kind, from a CSV with the columns text, kind, part, note (params `data.response_kinds`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detoxlens.common.errors import UserError
from detoxlens.common.text import is_blank
from detoxlens.data.sources import read_csv

Kind = Literal["refusal", "counter_speech", "answer"]
KINDS: tuple[Kind, ...] = ("refusal", "counter_speech", "answer")
PARTS = ("fit", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled(text="No, they help.", kind="counter_speech", part="test", note="leading no")"""

    text: str
    kind: Kind
    part: Literal["fit", "test"]
    note: str
    """What is special about it; for the reader."""


def read_response_kinds(path: Path, source: str) -> list[Labelled]:
    """The rows of the file, in its order.

    Raises:
        UserError: the file is no such CSV, a text is empty, a kind or part is unknown, or there is no answer to fit.
    """
    rows = []
    for line, cells in read_csv(path, source, ["text", "kind", "part", "note"]):
        for column, allowed in (("kind", KINDS), ("part", PARTS)):
            if cells[column] not in allowed:
                raise UserError(
                    f"data.response_kinds={source}, line {line}: {column} is {cells[column]!r}; allowed are "
                    f"{', '.join(allowed)}."
                )
        if is_blank(cells["text"]):
            raise UserError(f"data.response_kinds={source}, line {line}: the text is empty; remove the row.")
        rows.append(Labelled(text=cells["text"], kind=cells["kind"], part=cells["part"], note=cells["note"]))
    if not any(row.kind == "answer" and row.part == "fit" for row in rows):
        raise UserError(
            f"data.response_kinds={source} has no row of kind answer and part fit, from which to learn what is no "
            "counter-speech; add some, or set data.response_kinds to null."
        )
    return rows
