"""One renderer for every table of the report: rows of metrics.json under a list of columns, as Markdown and as HTML.

A cell whose number is not there shows a dash, with the reason under the table where metrics.json gives one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detoxlens.common.names import shown_name

Json = Mapping[str, Any]
DASH = "–"
Form = Callable[[Any], str]
"""How a value becomes a cell; gets no None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the columns of one row read: Row(model="tiny", variant="ft", found=metrics["tiny"]["ft"], key="p50")."""

    model: str
    variant: str
    found: Json
    """The part of metrics.json that columns' paths start from."""
    key: str = ""
    """What tells rows of one variant apart: a split, a method, a number of samples."""


@dataclass(frozen=True, slots=True)
class Column:
    """Column("perplexity", ("fluency", "perplexity"), plain(1)): heading, where the value lies in a row, its format."""

    heading: str
    path: tuple[str, ...] | Callable[[Row], Any]
    """Keys from `Row.found` down, or what reads the row."""
    form: Form = str
    is_name: bool = False
    """Names the row: flush left, where the others are numbers."""


MODEL = Column("model", lambda row: row.model, is_name=True)
VARIANT = Column("variant", lambda row: shown_name(row.variant), is_name=True)


def key_column(heading: str) -> Column:
    """Shows `Row.key`."""
    return Column(heading, lambda row: row.key, is_name=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as text: Table(title="Toxicity", caption="...", header=("model", "p50"), rows=(("tiny", "53.0"),))."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_names: int = 1
    """Columns at the left that name the row; the others are numbers."""
    notes: tuple[str, ...] = field(default=())
    """Why cells are empty; `–¹` refers to the first."""

    def markdown(self) -> str:
        """Under its heading and caption, reasons for empty cells below."""
        below = "".join(f"\n\n{superscript(i)} {note}" for i, note in enumerate(self.notes, 1))
        return f"## {self.title}\n\n{self.caption}\n\n{self.grid}{below}\n"

    @property
    def grid(self) -> str:
        """The cells in GitHub's table syntax, padded so that a terminal shows them straight."""
        if not self.rows:
            return "No rows."
        cells = [[cell.replace("|", "\\|") for cell in line] for line in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        align = ["-" * w if i < self.num_names else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        lines = [
            [
                cell.ljust(w) if i < self.num_names else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ]
            for line in cells
        ]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], align, *lines[1:]])


def table(title: str, caption: str, columns: Sequence[Column], rows: Iterable[Row]) -> Table:
    """Every row under every column; reasons for empty cells are numbered in the order in which they come up."""
    reasons: dict[str, int] = {}

    def cell(row: Row, column: Column) -> str:
        value = column.path(row) if callable(column.path) else value_at(row.found, *column.path)
        if value is not None and not (isinstance(value, Mapping) and "value" in value and value["value"] is None):
            return column.form(value)
        reason = None if callable(column.path) else reason_at(row.found, *column.path)
        return DASH if reason is None else DASH + superscript(reasons.setdefault(reason, len(reasons) + 1))

    return Table(
        title=title,
        caption=caption,
        header=tuple(column.heading for column in columns),
        rows=tuple(tuple(cell(row, column) for column in columns) for row in rows),
        num_names=sum(column.is_name for column in columns),
        notes=tuple(reasons),
    )


def value_at(tree: Json | None, *keys: str) -> Any:
    """`tree[a][b]`; None where a key is absent or None stands on the way."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def reason_at(tree: Json, *keys: str) -> str | None:
    """The sentence `reason` nearest above an empty value; None where there is none."""
    for depth in range(len(keys), 0, -1):
        if reason := value_at(tree, *keys[:depth], "reason"):
            return reason
    return None


def superscript(number: int) -> str:
    """12 -> ¹²."""
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
