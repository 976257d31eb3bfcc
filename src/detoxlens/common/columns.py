"""A table of records that is read a column, or a batch of rows, at a time: what nobody asks for is not in memory.

completions = open_rows(path, Completion)                     # `common.artifacts`
completions.column("sample_index")                            # an array; of texts, a `Coded`
completions.where(completions.column("split").equals("test")) # the same columns, fewer rows
for completion in completions: ...                            # records, read anew each time
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from detoxlens.common.arrow import arrow_schema, arrow_table, field_types, freezer, records
from detoxlens.common.coded import BATCH, Coded, Ragged

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")


class Table(Sequence[R], Generic[R]):
    """Rows of the dataclass `cls`, from a file or from memory."""

    def __init__(self, cls: type[R], source: _Source, rows: np.ndarray | None = None) -> None:
        """`rows`: those of the source that count, rising; None is all."""
        self.cls, self._source, self._rows = cls, source, rows

    @classmethod
    def read(cls, path: Path, record: type[R]) -> Table[R]:
        """Of a Parquet file, which must not change meanwhile."""
        return cls(record, _File(path))

    @classmethod
    def held(cls, table: pa.Table, record: type[R]) -> Table[R]:
        """Of columns in memory."""
        return cls(record, _Memory(table))

    @classmethod
    def of(cls, rows: Sequence[R], record: type[R]) -> Table[R]:
        """Of records in memory; a table is returned as it is."""
        return rows if isinstance(rows, cls) else cls(record, _Memory(arrow_table(rows, record)))

    def __len__(self) -> int:
        return self._source.num_rows if self._rows is None else len(self._rows)

    def __iter__(self) -> Iterator[R]:
        for batch in self.batches(*(field.name for field in dataclasses.fields(self.cls))):
            yield from records(batch, self.cls)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self.at(range(*row.indices(len(self))))
        (found,) = self.at([row if row >= 0 else row + len(self)])
        return found

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def at(self, rows: Sequence[int]) -> list[R]:
        """The records of a few rows, in the given order."""
        wanted = sorted(set(rows))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(wanted)
        mask = np.zeros(len(self), bool)
        mask[wanted] = True
        found = dict(zip(wanted, self.where(mask), strict=True))
        return [found[row] for row in rows]

    def where(self, mask: np.ndarray) -> Table[R]:
        """The rows for which `mask` (rows,) is true."""
        if mask.all():
            return self
        return Table(self.cls, self._source, np.flatnonzero(mask) if self._rows is None else self._rows[mask])

    def column(self, name: str) -> Any:
        """A column: texts and tuples of texts as `Coded`, numbers as an array in which NaN is a missing one."""
        whole = self._source.column(name, arrow_schema(self.cls).field(name).type)
        return whole if self._rows is None else whole[self._rows]

    def lists(self, name: str) -> Ragged:
        """A column of token ids."""
        values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for part in self.lists_in_parts(name):
            values.append(part.values)
            lengths.append(part.lengths)
        ends = np.cumsum(np.concatenate(lengths))
        return Ragged(np.concatenate(values), np.concatenate([np.zeros(1, np.int64), ends]))

    def lists_in_parts(self, name: str) -> Iterator[Ragged]:
        """The same, a batch of rows in memory at a time."""
        for batch in self.batches(name):
            found = batch.column(0)
            flat = found.flatten().to_numpy(zero_copy_only=False)
            small = not len(flat) or np.iinfo(np.int32).min <= flat.min() <= flat.max() <= np.iinfo(np.int32).max
            ends = found.offsets.to_numpy().astype(np.int64)
            yield Ragged(flat.astype(np.int32) if small else flat, ends - ends[0])

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Row by row the values of some columns, as the records have them."""
        freeze = [freezer(self._hints[name]) for name in names]
        for batch in self.batches(*names):
            columns = [map(f, batch.column(name).to_pylist()) for f, name in zip(freeze, names, strict=True)]
            yield from zip(*columns, strict=True)

    def batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        """Some columns, a batch of rows at a time; a batch without a row is left out."""
        start = 0
        for batch in self._source.batches(names):
            stop = start + len(batch)
            if self._rows is not None:
                low, high = np.searchsorted(self._rows, (start, stop))
                if high - low < len(batch):
                    batch = batch.take(_indices(self._rows[low:high] - start))
            if len(batch):
                yield batch
            start = stop

    @property
    def _hints(self) -> dict[str, Any]:
        return dict(zip((f.name for f in dataclasses.fields(self.cls)), field_types(self.cls), strict=True))


class _Source(ABC):
    """Where rows are; a column that was asked for is kept."""

    num_rows: int

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    @abstractmethod
    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The columns `names`, at most `BATCH` rows at a time."""

    def column(self, name: str, kind: pa.DataType) -> Any:
        if name not in self._kept:
            self._kept[name] = _column(self.batches([name]), kind)
        return self._kept[name]


class _File(_Source):
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        super().__init__()
        self.path = path
        self.num_rows = pq.read_metadata(path).num_rows

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(BATCH, columns=list(names), use_threads=False)


class _Memory(_Source):
    def __init__(self, table: pa.Table) -> None:
        super().__init__()
        self.table, self.num_rows = table, table.num_rows

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(list(names)).to_batches(BATCH)


def _column(batches: Iterator[pa.RecordBatch], kind: pa.DataType) -> Any:
    import pyarrow as pa

    place: dict[Any, int] = {}
    parts: list[np.ndarray] = []
    coded = pa.types.is_string(kind) or pa.types.is_list(kind)
    for batch in batches:
        found = batch.column(0)
        if pa.types.is_string(kind):
            found = found.dictionary_encode()
            names = [place.setdefault(name, len(place)) for name in found.dictionary.to_pylist()]
            parts.append(np.array(names, np.int32)[found.indices.to_numpy(zero_copy_only=False)])
        elif coded:
            rows = map(tuple, found.to_pylist())
            parts.append(np.fromiter((place.setdefault(row, len(place)) for row in rows), np.int32, len(found)))
        elif found.null_count or pa.types.is_floating(found.type):
            parts.append(found.cast(pa.float64()).to_numpy(zero_copy_only=False))
        else:
            parts.append(found.to_numpy(zero_copy_only=False))
    whole = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Coded(whole, list(place)) if coded else whole


def column(rows: Sequence[Any], name: str) -> Any:
    """As `Table.column`, also of records in a list."""
    if isinstance(rows, Table):
        return rows.column(name)
    values = [getattr(row, name) for row in rows]
    if not values or isinstance(next((v for v in values if v is not None), 0.0), int | float):
        return np.array([np.nan if value is None else value for value in values])
    return Coded.of(values)


def where(rows: Sequence[R], mask: np.ndarray) -> Sequence[R]:
    """As `Table.where`, also of records in a list."""
    return rows.where(mask) if isinstance(rows, Table) else [row for row, ok in zip(rows, mask, strict=True) if ok]


def _indices(rows: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows)
