"""Records as Arrow tables, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")


def records(batch: pa.RecordBatch | pa.Table, cls: type[R]) -> list[R]:
    """The rows of all columns as records."""
    names = [field.name for field in dataclasses.fields(cls)]
    freeze = {name: freezer(hint) for name, hint in zip(names, field_types(cls), strict=True)}
    columns = {n: [freeze[n](v) for v in batch.column(n).to_pylist()] for n in names}
    return [cls(**dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def arrow_table(rows: Iterable[R], cls: type[R]) -> pa.Table:
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
