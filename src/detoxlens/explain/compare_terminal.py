"""A comparison in the terminal: each checkpoint's table, the differences, and the entropy curves as bars of text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from detoxlens.explain.compare import Difference, differences, why_no_differences
from detoxlens.explain.explanation import Explanation
from detoxlens.explain.terminal import shown, table_of, view

BARS = "▁▂▃▄▅▆▇█"


def view_comparison(explanations: Sequence[Explanation], *, width: int) -> RenderableType:
    """What `detoxlens compare` prints.

    Args:
        explanations: at least two; the first is what the others are compared with.
        width: columns of the terminal.
    """
    parts: list[RenderableType] = []
    for explanation in explanations:
        parts += [Text(explanation.checkpoint, style="bold underline"), view(explanation, width=width), Text()]
    for found in differences(explanations):
        parts += [*_difference(explanations[0], found, width), Text()]
    if reason := why_no_differences(explanations):
        parts += [Text(reason), Text()]
    return Group(*parts, *_curves(explanations))


def print_comparison(explanations: Sequence[Explanation]) -> None:
    """Prints it on standard output, coloured where that is a terminal."""
    console = Console(highlight=False)
    console.print(view_comparison(explanations, width=console.width))


def _difference(first: Explanation, found: Difference, width: int) -> list[RenderableType]:
    most = max((abs(value) for row in found.share for value in row[: first.num_prompt]), default=0.0)
    rows = [
        [_signed(value, 2) for value in (found.prob[t], found.entropy_bits[t], found.dependence[t])]
        + [f"{100 * found.moved[t]:.0f}"]
        for t in range(len(found.moved))
    ]
    title = f"{found.checkpoint} less {first.checkpoint}"
    return [
        Text(title, style="bold underline"),
        Text(
            "Percentage points of the attribution; red: more, blue: less. "
            f"On average {100 * found.mean_moved:.0f} % of it lies elsewhere."
        ),
        *table_of(
            first,
            width,
            heads=("Δp", "Δbits", "Δdep.", "moved %"),
            measures=rows,
            cell=lambda t, j, head: _cell(found.share[t][j], most, head),
        ),
    ]


def _cell(change: float, most: float, head: str) -> Text:
    """Points on red (more) or blue (less), as wide as the column."""
    points = round(100 * change)
    text = (f"{points:+d}" if points else "").rjust(max(len(head), 3))
    strength = abs(change) / most if most else 0.0
    end = (165, 15, 21) if change > 0 else (8, 69, 148)
    red, green, blue = (round(255 + strength * (c - 255)) for c in end)
    return Text(text, style=Style(color="white" if strength > 0.55 else "black", bgcolor=f"rgb({red},{green},{blue})"))


def _curves(explanations: Sequence[Explanation]) -> list[RenderableType]:
    """A bar per generated token, on one scale for all checkpoints."""
    curves = [e.entropy_bits() for e in explanations]
    values = [value for curve in curves for value in curve if value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for explanation, curve in zip(explanations, curves, strict=True):
        bars = "".join(
            " " if v is None else BARS[round((len(BARS) - 1) * (v - low) / ((high - low) or 1))] for v in curve
        )
        table.add_row(Text(explanation.checkpoint), Text(bars), Text(explanation.summary(), style="dim"))
    tokens = " ".join(shown(piece) for piece in explanations[0].completion_pieces)
    title = f"Prompt entropy at each generated {explanations[0].unit}, {low:.2f} (lowest bar) to {high:.2f} bits"
    return [Text(title, style="bold"), table, Text(tokens, style="dim")]


def _signed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:+.{digits}f}"
