"""Answers of remote services in one SQLite file: asking again is free, and a killed run resumes.

Keyed by (scorer, its version, sha256 of the text); the texts themselves are not stored, nor is any key of a service.
"""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import ScoredText, text_sha256

_TABLE = """CREATE TABLE IF NOT EXISTS scores (
    scorer TEXT, version TEXT, text_sha256 TEXT, toxicity REAL, status TEXT, error TEXT, day TEXT,
    PRIMARY KEY (scorer, version, text_sha256))"""
_CHUNK = 500
"""Hashes per query; SQLite allows 32,766 variables, older builds 999."""


class ScoreCache:
    """Verdicts on disk; several processes may use one file at a time."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
            UserError: the file is there and is no SQLite database.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connected() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_TABLE)

    def read(self, scorer: str, version: str, texts: Sequence[str]) -> dict[str, ScoredText]:
        """The known verdicts, by text."""
        by_hash = {text_sha256(text): text for text in texts}
        hashes = list(by_hash)
        found: dict[str, ScoredText] = {}
        with self._connected() as connection:
            for start in range(0, len(hashes), _CHUNK):
                part = hashes[start : start + _CHUNK]
                query = (
                    "SELECT text_sha256, toxicity, status, error FROM scores WHERE scorer = ? AND version = ? "
                    f"AND text_sha256 IN ({','.join('?' * len(part))})"
                )
                for digest, toxicity, status, error in connection.execute(query, (scorer, version, *part)):
                    found[by_hash[digest]] = ScoredText(toxicity, status, False, error)
        return found

    def write(self, scorer: str, version: str, text: str, verdict: ScoredText) -> None:
        """Keeps one verdict; on disk when this returns."""
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        row = (scorer, version, text_sha256(text), verdict.toxicity, verdict.status, verdict.error, day)
        with self._connected() as connection:
            connection.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def rows(self) -> list[Mapping[str, Any]]:
        """Everything known, sorted; what `export-scores` writes and `recorded:FILE` reads."""
        with self._connected() as connection:
            cursor = connection.execute("SELECT * FROM scores ORDER BY scorer, version, text_sha256")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.DatabaseError as e:
            raise UserError(
                f"{self.path}: the score cache cannot be used ({e}). If it is damaged, delete it: scores are then "
                "asked for again."
            ) from None
