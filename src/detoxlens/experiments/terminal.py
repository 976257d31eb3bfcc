"""Experiments as one table of the terminal's width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from detoxlens.common.names import BASE, shown_name
from detoxlens.experiments.read import Revision

COLUMNS = (
    ("toxic, %", "toxic", 100, 1, False),
    ("to base", "toxic_vs_base", 100, 1, True),
    ("entropy\neffect,\nbits", "entropy_bits_model_effect", 1, 3, True),
    ("perplexity", "perplexity", 1, 2, False),
)
"""(head, name in reports/headline, factor, digits, signed)"""
LONGEST = 34
"""Characters of a changed value."""


def print_experiments(revisions: Sequence[Revision]) -> None:
    """Prints the table on standard output."""
    Console(highlight=False).print(view(revisions))


def view(revisions: Sequence[Revision]) -> RenderableType:
    """A row per (model, variant) whose numbers an experiment moved; intervals are in the report of each."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("experiment", no_wrap=True, style="bold")
    words = [word for revision in revisions for word in changes(revision).split()]
    table.add_column("changed", overflow="fold", min_width=min(LONGEST, max(map(len, words), default=0)))
    table.add_column("model/variant", no_wrap=True)
    for head, *_ in COLUMNS:
        table.add_column(head, justify="right")
    for revision in revisions:
        cells = list(rows_of(revision))
        for number, row in enumerate(cells):
            first = (revision.name, changes(revision)) if number == 0 else ("", "")
            table.add_row(*map(Text, (*first, *row)), end_section=number == len(cells) - 1)
    note = "Rates of the primary split, without their intervals, which each revision's reports/report.md has."
    return Group(table, Text(note, style="dim"))


def changes(revision: Revision) -> str:
    """`ppo.kl.coef 0.1 -> 0.02`, one a line; what a commit is for one."""
    if revision.error:
        return f"failed: {revision.error}"
    if revision.started_from is None:
        return "(commit)" if revision.rev != "workspace" else ""
    lines = [f"{key} {_short(before)} -> {_short(now)}" for key, (before, now) in revision.changed.items()]
    return "\n".join(lines) or f"as {revision.started_from}"


def rows_of(revision: Revision) -> Iterator[tuple[str, ...]]:
    """Cells of each (model, variant) that moved, base last of its model; then how many did not."""
    moved = sorted(revision.moved, key=lambda key: (key[0], key[1] == BASE, key[1]))
    for model, variant in moved:
        numbers = revision.headlines[model, variant]
        cells = tuple(_number(numbers.get(name), factor, digits, signed) for _, name, factor, digits, signed in COLUMNS)
        yield (f"{model}/{shown_name(variant)}", *cells)
    same = len(revision.headlines) - len(moved)
    if same and revision.started_from is not None:
        more = "more: " if moved else ""
        yield (f"{same} {more}as in {revision.started_from}", *[""] * len(COLUMNS))
    if not revision.headlines:
        yield ("no results", *[""] * len(COLUMNS))


def _number(value: float | None, factor: int, digits: int, signed: bool) -> str:
    return "–" if value is None else f"{factor * value:{'+' if signed else ''}.{digits}f}"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
