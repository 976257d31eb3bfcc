"""A table of records that is read a column, or a batch of rows, at a time: what nobody asks for is not in memory.

completions = open_rows(path, Completion)                     # `common.artifacts`
completions.column("sample_index")                            # an array; of texts, a `Coded`
completions.where(completions.column("split").equals("test")) # the same columns, fewer rows
for completion in completions: ...                            # records, read anew each time
"""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")
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


def records(batch: pa.RecordBatch | pa.Table, cls: type[R]) -> list[R]:
    """The rows of all columns as records."""
    names = [field.name for field in dataclasses.fields(cls)]
    freeze = {name: freezer(hint) for name, hint in zip(names, field_types(cls), strict=True)}
    columns = {n: [freeze[n](v) for v in batch.column(n).to_pylist()] for n in names}
    return [cls(**dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def arrow_table(rows: typing.Iterable[R], cls: type[R]) -> pa.Table:
    """Records as an Arrow table, in the given order."""
    import pyarrow as pa

    schema = arrow_schema(cls)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for row in rows:
        for name in schema.names:
            columns[name].append(getattr(row, name))
    return pa.table({n: pa.array(columns[n], type=schema.field(n).type) for n in schema.names}, schema=schema)


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """One below the other."""
    import pyarrow as pa

    return pa.concat_tables(tables)


def arrow_schema(cls: type) -> pa.Schema:
    """Arrow schema of a record class; None becomes null."""
    import pyarrow as pa

    scalars = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}

    def arrow(hint: Any):
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return arrow(next(a for a in args if a is not type(None)))
        if origin is typing.Literal:
            return pa.string()
        if origin is tuple:
            return pa.list_(arrow(args[0]))
        return scalars[hint]

    return pa.schema([(f.name, arrow(t)) for f, t in zip(dataclasses.fields(cls), field_types(cls), strict=True)])


def field_types(cls: type) -> list[Any]:
    hints = typing.get_type_hints(cls)
    return [hints[f.name] for f in dataclasses.fields(cls)]


def freezer(hint: Any) -> Any:
    """A function that turns lists read from Parquet back into the tuples of the record."""
    if "tuple" not in str(hint):
        return lambda value: value

    def freeze(value: Any) -> Any:
        return tuple(freeze(v) for v in value) if isinstance(value, list) else value

    return freeze


def _indices(rows: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows)
