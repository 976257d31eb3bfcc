"""Tables made elsewhere: CSV, JSON lines or Parquet, as one mapping per row. Values are as the file has them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.numbers import whole

Row = Mapping[str, Any]
BATCH = 2**14
"""Rows of a Parquet file that are in memory at a time."""
SUFFIXES = (".csv", ".jsonl", ".parquet")


def read_table(path: Path) -> list[Row]:
    """The file's rows, in order; a row's n-th neighbour in an editor is line n + 1 of a CSV without line breaks.

    Raises:
        UserError: the file is missing, empty, of another kind, or cannot be read.
    """
    return list(each_row(path))


def each_row(path: Path) -> Iterator[Row]:
    """The same, a row in memory at a time."""
    if path.suffix not in SUFFIXES and not path.is_dir():
        raise UserError(f"{path}: a file of the kind {', '.join(SUFFIXES)} is wanted; convert it.")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; name a file of the kind {', '.join(SUFFIXES)}.")
    rows = _READ[path.suffix](path)
    is_empty = True
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except (UnicodeDecodeError, csv.Error, ValueError, OSError) as e:
            raise UserError(f"{path} cannot be read as {path.suffix[1:]}: {e}.") from None
        is_empty = False
        yield row
    if is_empty:
        head = "a first line with the columns' names, then a line" if path.suffix == ".csv" else "one row"
        raise UserError(f"{path} holds no rows; it needs {head} per text.")


def require(path: Path, rows: Sequence[Row], columns: Sequence[str], *, remedy: str = "") -> None:
    """Every row has these columns.

    Args:
        path: of the file, for the message.
        rows: its rows.
        columns: their names.
        remedy: how to name another column, a sentence.

    Raises:
        UserError: the first row that lacks one.
    """
    for number, row in enumerate(rows, 1):
        require_of_row(path, number, row, columns, remedy=remedy)


def require_of_row(path: Path, number: int, row: Row, columns: Sequence[str], *, remedy: str = "") -> None:
    """The same of one row."""
    for column in columns:
        if column not in row:
            raise UserError(
                f"{path}: row {number} has no column {column!r}.{did_you_mean(column, map(str, row))} "
                f"It has: {', '.join(map(str, row))}.{remedy and f' {remedy}'}"
            )


def probability(path: Path, number: int, column: str, value: Any) -> float | None:
    """`value` as a number; None for an empty cell, null or NaN.

    Raises:
        UserError: it is no number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = float("true or false" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise UserError(f"{path}: row {number}: {column}={value!r} is no number.") from None
    return None if found != found else found


def whole_number(path: Path, number: int, column: str, value: Any) -> int:
    """`value` as a whole number of at least 0; `0.0`, as other programs write it, is one.

    Raises:
        UserError: it is not.
    """
    found = whole(value)
    if found is None or found < 0:
        raise UserError(f"{path}: row {number}: {column}={value!r} is no whole number of at least 0.")
    return found


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**24)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = list(reader.fieldnames or ())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the column {twice[0]!r} is there twice")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has more or fewer cells than the head")
            yield row


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as e:
                    raise ValueError(f"line {number}: {e}") from None
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is not an object")
                yield row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


_READ = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
