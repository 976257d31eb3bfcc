"""DialoCONAN: dialogues between a hater and a counter-narrator. Bonaldi et al. 2022 (arXiv 2211.03433).

One CSV row per turn: text, TARGET, dialogue_id, turn_id, type (HS | CN), source. Turns should alternate, hater first; a
few dialogues of the published file do not. Every row ends up in a conversation or in `dropped`, with its reason.

Other files have one exchange per row, in columns of any name: CONAN (Chung et al. 2019), Multitarget-CONAN (Fanton et
al. 2021); each row is a conversation of two turns.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.common.numbers import identifier, whole
from detoxlens.common.text import is_blank
from detoxlens.data.sources import Dropped, read_csv
from detoxlens.params.data import PairColumns

COLUMNS = ("text", "TARGET", "dialogue_id", "turn_id", "type", "source")
HATER, COUNTER = "HS", "CN"
CONAN_ID = "cn_id"
_CONAN_ID_FORM = re.compile(r"(?P<original>(?P<language>[A-Z]{2})\d+)(?P<versions>(?:[TP]\d+)*)")
"""Language and number of the original pair, then T for a translation into English and P for a paraphrase."""
log = logging.getLogger(__name__)
_MISSING_TEXTS = frozenset({"", "nan", "null", "<na>"})
"""What spreadsheets and pandas leave where there was no text, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A dialogue before it is given a split; `turns` alternate hater, counter-narrative and are of even number."""

    dialogue_id: str
    target: str
    """TARGET of its first kept turn."""
    source: str
    turns: tuple[str, ...]
    version_of: str = ""
    """Of a translation or a paraphrase, and of what it is one of: what they have in common (CONAN's EN1, FR12)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialoconanFile:
    """All that a file held: num_rows == kept turns + len(dropped)."""

    conversations: tuple[Conversation, ...]
    """In the order of their first row in the file."""
    dropped: tuple[Dropped, ...]
    num_rows: int
    num_dialogues: int
    """Distinct dialogue ids read, kept or not."""
    num_trimmed: int
    """Kept turns that began or ended in white space, which was taken off."""


@dataclass(frozen=True, slots=True)
class _Turn:
    line: int
    dialogue_id: str
    turn_id: int
    speaker: str
    target: str
    source: str
    text: str

    @property
    def name(self) -> str:
        return f"line {self.line}, dialogue {self.dialogue_id}, turn {self.turn_id}"


def read_dialoconan(path: Path, source: str | None = None) -> DialoconanFile:
    """The conversations of a DialoCONAN CSV, white space around turns taken off, unpaired and empty turns dropped.

    Args:
        path: UTF-8 CSV with a header that names at least `COLUMNS`, in any order.
        source: How the user knows the file, for messages; the path by default.

    Raises:
        UserError: the file is empty, not UTF-8, malformed or lacks a column; a turn_id is no number or repeats within
            its dialogue; a type is neither HS nor CN; or no pair of turns is left.
    """
    source = source or str(path)
    dialogues: dict[str, list[_Turn]] = {}
    for turn in _read_turns(path, source):
        dialogues.setdefault(turn.dialogue_id, []).append(turn)
    if not dialogues:
        raise UserError(f"{source} holds a header and no rows; is it the whole file?")

    conversations, dropped, num_trimmed = [], [], 0
    for dialogue_id, turns in dialogues.items():
        pairs, lost = _pair_up(sorted(turns, key=lambda turn: turn.turn_id), source)
        dropped += lost
        num_trimmed += sum(turn.text != turn.text.strip() for turn in pairs)
        if pairs:
            conversations.append(
                Conversation(
                    dialogue_id=dialogue_id,
                    target=pairs[0].target,
                    source=pairs[0].source,
                    turns=tuple(turn.text.strip() for turn in pairs),
                )
            )
    if not conversations:
        reasons = Counter(d.reason for d in dropped).most_common()
        raise UserError(
            f"{source}: none of its {len(dropped)} rows is left: "
            f"{', '.join(f'{n} x {reason}' for reason, n in reasons)} (first: {dropped[0].row}). "
            f"A dialogue needs an HS turn followed by a CN turn, both with text."
        )
    return DialoconanFile(
        conversations=tuple(conversations),
        dropped=tuple(dropped),
        num_rows=sum(map(len, dialogues.values())),
        num_dialogues=len(dialogues),
        num_trimmed=num_trimmed,
    )


def read_pairs(path: Path, columns: PairColumns, source: str | None = None) -> DialoconanFile:
    """The conversations of a CSV with one exchange per row: two turns each, repeated rows dropped.

    Args:
        path: UTF-8 CSV with a header that names the columns.
        columns: which column holds what.
        source: How the user knows the file, for messages; the path by default.

    Raises:
        UserError: the file is empty, not UTF-8, malformed or lacks a column; or no exchange is left.
    """
    source = source or str(path)
    needed = [c for c in (columns.hater, columns.counter, columns.target, columns.id) if c is not None]
    conversations: list[Conversation] = []
    dropped: list[Dropped] = []
    seen: set[tuple[str, str]] = set()
    num_rows = num_trimmed = 0
    unread_ids: list[str] = []
    for line, row in read_csv(path, source, needed):
        num_rows += 1
        original, language = _conan_id(row[columns.id]) if columns.id else ("", "")
        unread_ids += [row[CONAN_ID]] if columns.id is None and CONAN_ID in row else []
        given = row[columns.hater], row[columns.counter]
        turns = given[0].strip(), given[1].strip()
        if any(_is_missing(turn) for turn in turns):
            dropped.append(Dropped(f"line {line}", "empty text"))
        elif columns.language is not None and language != columns.language:
            reason = f"in another language than {columns.language}" if language else "its id does not say its language"
            dropped.append(Dropped(f"line {line}", reason))
        elif turns in seen:
            dropped.append(Dropped(f"line {line}", "the exchange of an earlier row again"))
        else:
            seen.add(turns)
            num_trimmed += sum(a != b for a, b in zip(given, turns, strict=True))
            target = row[columns.target].strip() if columns.target else ""
            conversations.append(
                Conversation(dialogue_id=str(line), target=target, source=path.name, turns=turns, version_of=original)
            )
    if not conversations:
        wanted = f" in {columns.language} (data.dialogue_columns.language)" if columns.language else ""
        raise UserError(f"{source} has no row with text in both {columns.hater!r} and {columns.counter!r}{wanted}.")
    _warn_of_versions(unread_ids, source)
    return DialoconanFile(
        conversations=tuple(conversations),
        dropped=tuple(dropped),
        num_rows=num_rows,
        num_dialogues=num_rows,
        num_trimmed=num_trimmed,
    )


def _conan_id(cell: str) -> tuple[str, str]:
    """(what all versions of the pair have in common, language of the text) of an id such as FR1T1; EN1 -> EN1, EN.

    An id of another form stands for itself, and says nothing of a language.
    """
    match = _CONAN_ID_FORM.fullmatch(cell.strip())
    if match is None:
        return cell.strip(), ""
    return match["original"], "EN" if "T" in match["versions"] else match["language"]


def _warn_of_versions(ids: Sequence[str], source: str) -> None:
    """Says what is mixed where a file has CONAN's ids and params do not name their column."""
    known = [_conan_id(cell) for cell in ids]
    languages = Counter(language for _, language in known if language)
    num_versions = len(known) - len({original for original, _ in known})
    if len(languages) > 1 or num_versions:
        log.warning(
            "%s: its column %s tells languages (%s) and versions of one pair (%d translations and paraphrases); set "
            "data.dialogue_columns.id: %s to keep versions in one split, and .language to keep one language",
            source,
            CONAN_ID,
            ", ".join(f"{language} {count}" for language, count in languages.most_common()) or "none",
            num_versions,
            CONAN_ID,
        )


def _pair_up(turns: list[_Turn], source: str) -> tuple[list[_Turn], list[Dropped]]:
    """Hater turns each with the reply that follows it, and what is left over: HS CN HS HS -> [HS CN], [HS, HS]."""
    for earlier, later in pairwise(turns):
        if earlier.turn_id == later.turn_id:
            raise UserError(
                f"{source}: dialogue {later.dialogue_id} has turn_id {later.turn_id} twice, on lines {earlier.line} "
                f"and {later.line}; number the turns 0, 1, 2, ... or remove one of the rows."
            )
    kept: list[_Turn] = []
    dropped: list[Dropped] = []
    waiting: _Turn | None = None  # a hater turn that has no reply yet
    for turn in turns:
        if _is_missing(turn.text):
            dropped.append(Dropped(turn.name, "empty text"))
        elif turn.speaker == HATER:
            if waiting:
                dropped.append(Dropped(waiting.name, "hater turn without a reply"))
            waiting = turn
        elif waiting:
            kept += [waiting, turn]
            waiting = None
        else:
            dropped.append(Dropped(turn.name, "reply without a hater turn"))
    if waiting:
        dropped.append(Dropped(waiting.name, "hater turn without a reply"))
    return kept, dropped


def _read_turns(path: Path, source: str) -> Iterator[_Turn]:
    for line, row in read_csv(path, source, COLUMNS):
        if not row["dialogue_id"].strip():
            raise UserError(
                f"{source}, line {line}: dialogue_id is empty; every row must say which dialogue it is from."
            )
        turn_id = whole(row["turn_id"])
        if turn_id is None:
            raise UserError(
                f"{source}, line {line}: turn_id is {row['turn_id']!r}; it must be a whole number, 0 for the first."
            )
        if row["type"] not in (HATER, COUNTER):
            raise UserError(
                f"{source}, line {line}: type is {row['type']!r}; it must be {HATER} (hater) or {COUNTER} "
                f"(counter-narrative)."
            )
        yield _Turn(
            line, identifier(row["dialogue_id"]), turn_id, row["type"], row["TARGET"], row["source"], row["text"]
        )


def _is_missing(text: str) -> bool:
    """Is there no text, or what spreadsheets and pandas leave in its place?"""
    return is_blank(text) or text.strip().casefold() in _MISSING_TEXTS
