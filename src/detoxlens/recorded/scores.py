"""`recorded:FILE`: scores made elsewhere or earlier, found by the text or its hash; asks nobody.

FILE (.csv, .jsonl, .parquet) has a column `toxicity` (0..1; empty: not scored) and one of `text`, `text_sha256` (what
`detoxlens export-scores` writes), or `prompt_id` (with `sample_index` where a prompt has several completions).
Without a file, in the stage score, it is the recorded.parquet that `detoxlens import-completions` left.
"""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.common.numbers import identifier
from detoxlens.common.scoring import Keys, ScoredText, Source, text_sha256
from detoxlens.common.text import as_read, is_blank, match_key
from detoxlens.recorded.table_file import Row, each_row, probability, require_of_row, whole_number

MATCHED_BY = ("prompt_id", "text_sha256", "text")
"""The first of them that the file has decides."""
MISSING = ScoredText(None, "failed", False, "not in the recorded file")
AMBIGUOUS = ScoredText(None, "failed", False, "the file has several texts that look like this one, scored differently")
NOT_SCORED = ScoredText(None, "failed", False, "recorded without a score")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """Texts that were looked for; blank ones are not."""

    num_asked: int = 0
    num_exact: int = 0
    """In the file as they are."""
    num_missing: int = 0


class Recorded:
    """A file of scores as a scorer."""

    activation = "recorded"
    source: Source = "file"

    def __init__(self, address: str, *, root: Path, name: str | None = None) -> None:
        """Reads the file whole.

        Args:
            address: what follows `recorded:`.
            root: a relative path starts here.
            name: what the scores are filed under; None is `recorded:<address>`.

        Raises:
            UserError: the file cannot be read, lacks a column, or scores one row twice and differently.
        """
        if not address:
            raise UserError(
                "toxicity.scorers: 'recorded' alone is for imported completions in the stage score; elsewhere name a "
                "file: recorded:<file.csv | .jsonl | .parquet>."
            )
        self.name, self.path = name or f"recorded:{address}", root / address
        first = next(each_row(self.path))
        require_of_row(self.path, 1, first, ["toxicity"])
        self.matched_by = next((column for column in MATCHED_BY if column in first), None)
        if self.matched_by is None:
            raise UserError(
                f"{self.path} has none of the columns {', '.join(MATCHED_BY)}, so its scores cannot be matched with "
                f"completions; it has: {', '.join(first)}."
            )
        self.label = str(first.get("label") or "toxicity")
        with self.path.open("rb") as file:
            self.version = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self._by_key = self._index()
        self._by_match_key = self._near_index() if self.matched_by == "text" else {}

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order: by (prompt_id, sample_index) if the file has prompt_id, else by text.

        Raises:
            UserError: the file is matched by prompt_id and there are no keys, or it knows none of the texts.
        """
        tally = Tally()
        verdicts = self.verdicts(texts, keys, tally)
        self.check(tally)
        return verdicts

    def verdicts(self, texts: Sequence[str], keys: Keys | None, tally: Tally) -> list[ScoredText]:
        """The same of a part of the texts; `check` comes after the last part."""
        if self.matched_by != "prompt_id":
            keys = [(text_sha256(text), 0) for text in texts]
        elif keys is None:
            raise UserError(f"{self.path} is matched by prompt_id, which a text alone has not; add a column text.")
        return [self._found(key, text, tally) for key, text in zip(keys, texts, strict=True)]

    def _found(self, key: tuple[str, int], text: str, tally: Tally) -> ScoredText:
        if is_blank(text):
            return ScoredText(None, "empty", False, "")
        exact = self._by_key.get(key)
        found = exact or self._near(text)
        tally.num_asked += 1
        tally.num_exact += exact is not None
        tally.num_missing += found == MISSING
        return found

    def check(self, tally: Tally) -> None:
        """Warns of texts that are in the file in another form.

        Raises:
            UserError: the file knows none of the texts.
        """
        if tally.num_asked and tally.num_missing == tally.num_asked:
            raise UserError(
                f"{self.path} matches none of the {tally.num_asked} completions by {self.matched_by}: scores of other "
                "completions? Name the right file, or score with profanity_check or hf:..."
            )
        if num_near := tally.num_asked - tally.num_exact - tally.num_missing:
            log.warning(
                "%s: %d of %d texts are in the file but for white space, line ends, Unicode forms or invisible "
                "characters, and are taken for the same; %d are in it as they are, %d not at all",
                self.path,
                num_near,
                tally.num_asked,
                tally.num_exact,
                tally.num_missing,
            )

    def _near(self, text: str) -> ScoredText:
        """The verdict on a text that differs in nothing that is seen; MISSING if there is none."""
        if self.matched_by == "text":
            return self._by_match_key.get(match_key(text), MISSING)
        if self.matched_by == "text_sha256":
            for version in versions(text):
                if found := self._by_key.get((text_sha256(version), 0)):
                    return found
        return MISSING

    def _index(self) -> _ByKey:
        """Key -> verdict. The same score twice is one; a score beats a row without one."""
        found = _ByKey()
        for number, row in enumerate(each_row(self.path), 1):
            require_of_row(self.path, number, row, ["toxicity", self.matched_by])
            key, verdict = self._key(number, row), self._verdict(number, row)
            known = found.get(key)
            if known is not None and NOT_SCORED not in (known, verdict) and known != verdict:
                raise UserError(
                    f"{self.path}: rows {self._counted_row(key)} and {number} have the same {self.matched_by} and "
                    f"different scores ({known.toxicity} and {verdict.toxicity}): which one counts? Remove one, or "
                    "match by prompt_id and sample_index."
                )
            if known is None or known == NOT_SCORED:
                found.put(key, verdict)
        return found

    def _counted_row(self, key: tuple[str, int]) -> int:
        """The number of the row whose verdict on `key` counts: the first with a score, or else the first."""
        rows = (
            (number, self._verdict(number, row) == NOT_SCORED)
            for number, row in enumerate(each_row(self.path), 1)
            if self._key(number, row) == key
        )
        first, is_blank_row = next(rows)
        return next((number for number, blank in rows if not blank), first) if is_blank_row else first

    def _near_index(self) -> Mapping[str, ScoredText]:
        """`match_key` of each text -> its verdict, where all rows with that key agree."""
        found: dict[str, ScoredText] = {}
        for row in each_row(self.path):
            key, verdict = match_key(_text(row["text"])), self._by_key.get((text_sha256(_text(row["text"])), 0))
            known = found.get(key, NOT_SCORED)
            agree = NOT_SCORED in (known, verdict) or known == verdict
            found[key] = AMBIGUOUS if not agree else verdict if known == NOT_SCORED else known
        return found

    def _key(self, number: int, row: Row) -> tuple[str, int]:
        if self.matched_by == "prompt_id":
            index = row.get("sample_index")
            blank = index is None or index == ""
            return identifier(row["prompt_id"]), 0 if blank else whole_number(self.path, number, "sample_index", index)
        return (str(row["text_sha256"]) if self.matched_by == "text_sha256" else text_sha256(_text(row["text"]))), 0

    def _verdict(self, number: int, row: Row) -> ScoredText:
        toxicity = probability(self.path, number, "toxicity", row["toxicity"])
        if toxicity is None:
            return ScoredText(None, "failed", False, str(row["error"])) if row.get("error") else NOT_SCORED
        if not 0 <= toxicity <= 1:
            raise UserError(f"{self.path}: row {number}: toxicity={toxicity} is not between 0 and 1.")
        return ScoredText(toxicity, "ok", False, "")


class _ByKey:
    """(name, number) -> verdict; a number's 80 bytes instead of the 250 of a dict of pairs and records."""

    def __init__(self) -> None:
        self._first: dict[str, float | ScoredText] = {}
        self._others: dict[str, dict[int, float | ScoredText]] = {}

    def get(self, key: tuple[str, int]) -> ScoredText | None:
        name, number = key
        found = self._first.get(name) if number == 0 else self._others.get(name, {}).get(number)
        return ScoredText(found, "ok", False, "") if isinstance(found, float) else found

    def put(self, key: tuple[str, int], verdict: ScoredText) -> None:
        name, number = key
        kept = verdict.toxicity if verdict.status == "ok" else verdict
        if number == 0:
            self._first[name] = kept
        else:
            self._others.setdefault(name, {})[number] = kept


def versions(text: str) -> list[str]:
    """The ways in which other programs write the same text, of which a file of hashes may hold any."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    forms += [match_key(text), as_read(text)]
    ends = [change for form in forms for change in (form, form.replace("\r\n", "\n"), form.replace("\n", "\r\n"))]
    return list(dict.fromkeys(version for form in ends for version in (form, form.strip())))


def _text(cell: object) -> str:
    """A cell as text; null and NaN are the empty text."""
    return "" if cell is None or cell != cell else str(cell)
