"""(prompt_id, sample_index) of every row of a table, as sorted numbers: a set of a million tuples takes 200 MB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import cached_property

import numpy as np

from detoxlens.common.coded import Coded
from detoxlens.common.columns import Table

Key = tuple[str, int]
"""(prompt_id, sample_index): what all tables join on."""


class Keys:
    """The rows of one table by their keys; of a key that stands twice the last row counts."""

    def __init__(self, table: Table) -> None:
        self.prompts: Coded[str] = table.column("prompt_id")
        self.samples = table.column("sample_index").astype(np.int64)
        self._stride = int(self.samples.max(initial=0)) + 1

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.prompts.names)}

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers of the keys, rising, and their rows where these are in another order."""
        numbers = self.prompts.codes * self._stride + self.samples
        if (np.diff(numbers) > 0).all():
            return numbers, None
        order = np.argsort(numbers, kind="stable")
        return numbers[order], order

    def rows_of(self, other: Keys) -> np.ndarray:
        """(other's rows,): the row of the same key here, -1 where there is none."""
        if self is other:
            return np.arange(len(self))
        place = self._place
        codes = np.array([place.get(name, -1) for name in other.prompts.names], np.int64)[other.prompts.codes]
        inside = (codes >= 0) & (other.samples < self._stride)
        return self._rows(np.where(inside, codes * self._stride + other.samples, -1))

    def row(self, key: Key) -> int:
        """-1 where there is none."""
        code = self._place.get(key[0], -1)
        if code < 0 or not 0 <= key[1] < self._stride:
            return -1
        return int(self._rows(np.array([code * self._stride + key[1]]))[0])

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        known, order = self._sorted
        if not len(known):
            return np.full(len(numbers), -1)
        at = np.searchsorted(known, numbers, side="right") - 1
        found = np.where((at >= 0) & (known[at] == numbers), at, -1)
        return found if order is None else np.where(found >= 0, order[found], -1)


class KeySet(Set[Key]):
    """The keys of some rows."""

    def __init__(self, keys: Keys, mask: np.ndarray) -> None:
        self._keys, self.mask = keys, mask

    def __contains__(self, key: object) -> bool:
        row = self._keys.row(key)
        return row >= 0 and bool(self.mask[row])

    def __iter__(self) -> Iterator[Key]:
        return zip(self._keys.prompts[self.mask], self._keys.samples[self.mask].tolist(), strict=True)

    def __len__(self) -> int:
        return int(self.mask.sum())

    @classmethod
    def _from_iterable(cls, keys) -> set[Key]:
        return set(keys)


class Verdicts(Mapping[Key, float]):
    """Key -> toxicity, 0..1, of the scored completions."""

    def __init__(self, keys: Keys, values: np.ndarray) -> None:
        self.keys_of_rows, self.by_row = keys, values
        """(rows,), NaN where a completion is not scored."""

    def __getitem__(self, key: Key) -> float:
        row = self.keys_of_rows.row(key)
        value = float(self.by_row[row]) if row >= 0 else np.nan
        if value != value:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[Key]:
        return iter(KeySet(self.keys_of_rows, ~np.isnan(self.by_row)))

    def __len__(self) -> int:
        return int((~np.isnan(self.by_row)).sum())
