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
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.common.numbers import identifier
from detoxlens.common.scoring import Keys, ScoredText, Source, text_sha256
from detoxlens.common.text import as_read, is_blank, match_key
from detoxlens.recorded.table_file import Row, probability, read_table, require, whole_number

MATCHED_BY = ("prompt_id", "text_sha256", "text")
"""The first of them that the file has decides."""
MISSING = ScoredText(None, "failed", False, "not in the recorded file")
AMBIGUOUS = ScoredText(None, "failed", False, "the file has several texts that look like this one, scored differently")
NOT_SCORED = ScoredText(None, "failed", False, "recorded without a score")

log = logging.getLogger(__name__)


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
        rows = read_table(self.path)
        require(self.path, rows, ["toxicity"])
        self.matched_by = next((column for column in MATCHED_BY if column in rows[0]), None)
        if self.matched_by is None:
            raise UserError(
                f"{self.path} has none of the columns {', '.join(MATCHED_BY)}, so its scores cannot be matched with "
                f"completions; it has: {', '.join(rows[0])}."
            )
        require(self.path, rows, [self.matched_by])
        self.label = str(rows[0].get("label") or "toxicity")
        self.version = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        self._by_key = self._index(rows)
        self._by_match_key = self._near_index(rows) if self.matched_by == "text" else {}

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order: by (prompt_id, sample_index) if the file has prompt_id, else by text.

        Raises:
            UserError: the file is matched by prompt_id and there are no keys, or it knows none of the texts.
        """
        if self.matched_by != "prompt_id":
            keys = [(text_sha256(text), 0) for text in texts]
        elif keys is None:
            raise UserError(f"{self.path} is matched by prompt_id, which a text alone has not; add a column text.")
        return self._found(keys, texts)

    def _found(self, keys: Sequence[tuple[str, int]], texts: Sequence[str]) -> list[ScoredText]:
        asked = [(key, text) for key, text in zip(keys, texts, strict=True) if not is_blank(text)]
        exact = sum(key in self._by_key for key, _ in asked)
        found = iter([self._by_key.get(key) or self._near(text) for key, text in asked])
        verdicts = [ScoredText(None, "empty", False, "") if is_blank(text) else next(found) for text in texts]
        num_missing = verdicts.count(MISSING)
        if asked and num_missing == len(asked):
            raise UserError(
                f"{self.path} matches none of the {len(asked)} completions by {self.matched_by}: scores of other "
                "completions? Name the right file, or score with profanity_check or hf:..."
            )
        if exact + num_missing < len(asked):
            log.warning(
                "%s: %d of %d texts are in the file but for white space, line ends, Unicode forms or invisible "
                "characters, and are taken for the same; %d are in it as they are, %d not at all",
                self.path,
                len(asked) - exact - num_missing,
                len(asked),
                exact,
                num_missing,
            )
        return verdicts

    def _near(self, text: str) -> ScoredText:
        """The verdict on a text that differs in nothing that is seen; MISSING if there is none."""
        if self.matched_by == "text":
            return self._by_match_key.get(match_key(text), MISSING)
        if self.matched_by == "text_sha256":
            for version in versions(text):
                if (text_sha256(version), 0) in self._by_key:
                    return self._by_key[text_sha256(version), 0]
        return MISSING

    def _index(self, rows: Sequence[Row]) -> Mapping[tuple[str, int], ScoredText]:
        """Key -> verdict. The same score twice is one; a score beats a row without one."""
        found: dict[tuple[str, int], ScoredText] = {}
        first: dict[tuple[str, int], int] = {}
        for number, row in enumerate(rows, 1):
            key, verdict = self._key(number, row), self._verdict(number, row)
            if key in found and NOT_SCORED not in (found[key], verdict) and found[key] != verdict:
                raise UserError(
                    f"{self.path}: rows {first[key]} and {number} have the same {self.matched_by} and different scores "
                    f"({found[key].toxicity} and {verdict.toxicity}): which one counts? Remove one, or match by "
                    "prompt_id and sample_index."
                )
            if key not in found or found[key] == NOT_SCORED:
                found[key], first[key] = verdict, number
        return found

    def _near_index(self, rows: Sequence[Row]) -> Mapping[str, ScoredText]:
        """`match_key` of each text -> its verdict, where all rows with that key agree."""
        found: dict[str, ScoredText] = {}
        for row in rows:
            key, verdict = match_key(_text(row["text"])), self._by_key[text_sha256(_text(row["text"])), 0]
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


def versions(text: str) -> list[str]:
    """The ways in which other programs write the same text, of which a file of hashes may hold any."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    forms += [match_key(text), as_read(text)]
    ends = [change for form in forms for change in (form, form.replace("\r\n", "\n"), form.replace("\n", "\r\n"))]
    return list(dict.fromkeys(version for form in ends for version in (form, form.strip())))


def _text(cell: object) -> str:
    """A cell as text; null and NaN are the empty text."""
    return "" if cell is None or cell != cell else str(cell)
