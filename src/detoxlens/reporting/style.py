"""How the figures look, and how they become the same bytes each time: SVG with a fixed hash salt and no date, and PNG.

Colours are those of Okabe and Ito (2008), told apart with any kind of colour vision; `it` is grey, the reference.
Lines carry their names at their ends instead of a legend.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context

GREY = "#4d4d4d"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
FAINT = "#8c8c8c"
TOXIC_RED = "#b3003c"
RC = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "detoxlens",
    "svg.fonttype": "path",
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Our settings on top of matplotlib's defaults, whatever the user's matplotlibrc says."""
    with context(["default", RC], after_reset=True):
        yield


def render(figure: Figure) -> Mapping[str, bytes]:
    """{"svg": ..., "png": ...}; the same figure gives the same bytes. The SVG has no background: pages may be dark."""
    drawn = svg(figure)
    figure.set_layout_engine("none")  # settled by the first drawing
    return {"svg": drawn, "png": _saved(figure, "png", {"Software": None})}


def svg(figure: Figure) -> bytes:
    """The figure as SVG without a background."""
    return _saved(figure, "svg", {"Date": None})


def _saved(figure: Figure, kind: str, metadata: Mapping[str, None]) -> bytes:
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(buffer, format=kind, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue()


def colours(variants: Sequence[str]) -> dict[str, str]:
    """A colour per variant: grey for `it`, the palette in order for the others."""
    others = [variant for variant in variants if variant != "it"]
    return {"it": GREY} | {variant: PALETTE[i % len(PALETTE)] for i, variant in enumerate(others)}


def note(axes: Axes, text: str) -> None:
    """A remark in the middle of an otherwise empty panel."""
    lines = "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, 44))
    axes.text(0.5, 0.5, lines, transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=8)
    axes.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)  # axes may be shared: no set_xticks
    axes.grid(visible=False)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, size: float = 8) -> None:
    """Names lines at the right edge, moved apart so that none overlaps, each tied to its line's end.

    Args:
        axes: with its final limits.
        ends: (x, y, text, colour) of each line's last point.
        size: of the text, in points.
    """
    if not ends:
        return
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    height = axes.get_position().height * axes.figure.get_figheight() * 72  # points
    gap = (high - low) * size * 1.25 / height
    ordered = sorted(ends, key=lambda end: end[1])
    places = spread([y for _, y, _, _ in ordered], gap, low, high)
    for (x, y, text, colour), place in zip(ordered, places, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(right + 0.03 * (right - axes.get_xlim()[0]), place),
            textcoords="data",
            va="center",
            ha="left",
            color=colour,
            fontsize=size,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.7, "shrinkA": 1},
        )


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Rising positions moved as little as possible (least squares) so that neighbours are `gap` apart.

    Subtracting i * gap turns "at least gap apart" into "not falling", which pooling adjacent violators solves.
    """
    blocks: list[list[float]] = []  # [sum, count]
    for i, position in enumerate(positions):
        blocks.append([position - i * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    flat = [total / count for total, count in blocks for _ in range(int(count))]
    room = high - gap * (len(flat) - 1)
    return [min(max(value, low), max(room, low)) + i * gap for i, value in enumerate(flat)]
