"""Columns in memory: of values that repeat, and of rows that differ in length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
BATCH = 2**15
"""Rows that are in memory while a column is read."""


class Coded(Sequence[T]):
    """A column of repeated values: row i is `names[codes[i]]`, and no name stands twice."""

    __slots__ = ("codes", "names")

    def __init__(self, codes: np.ndarray, names: Sequence[T]) -> None:
        self.codes, self.names = codes, names

    @classmethod
    def of(cls, values: Sequence[T]) -> Coded[T]:
        """The same values; those that are coded already are returned."""
        if isinstance(values, cls):
            return values
        place: dict[T, int] = {}
        codes = np.fromiter((place.setdefault(value, len(place)) for value in values), np.int64, len(values))
        return cls(codes, list(place))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Any:
        """A row's value; of a slice, a mask or an array of rows, the column of these."""
        found = self.codes[rows]
        return Coded(found, self.names) if isinstance(found, np.ndarray) else self.names[found]

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self.codes), BATCH):
            yield from map(self.names.__getitem__, self.codes[start : start + BATCH].tolist())

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def equals(self, value: T) -> np.ndarray:
        """(rows,) whether each is `value`."""
        return self.codes == self.names.index(value) if value in self.names else np.zeros(len(self), bool)

    def present(self) -> list[T]:
        """The values that some row has, in the order of their first rows."""
        return [self.names[code] for code in self._used().tolist()]

    def renumbered(self) -> Coded[T]:
        """The same column, names in the order of their first rows and none without a row."""
        used = self._used()
        place = np.zeros(len(self.names), np.int64)
        place[used] = np.arange(len(used))
        return Coded(place[self.codes], [self.names[code] for code in used.tolist()])

    def _used(self) -> np.ndarray:
        """The codes that some row has, in the order of their first rows."""
        first = np.full(len(self.names), len(self))
        first[self.codes[::-1]] = np.arange(len(self))[::-1]  # of several the last to be written is the first row
        order = np.argsort(first, kind="stable")
        return order[: int((first < len(self)).sum())]


@dataclasses.dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different length: row i is `values[offsets[i] : offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray  # (rows + 1,)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(np.fromiter((v for row in rows for v in row), np.int64, int(offsets[-1])), offsets)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1
