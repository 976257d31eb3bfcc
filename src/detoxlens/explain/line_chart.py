"""Lines over steps as an inline SVG, in the page's own colours, names and text; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from detoxlens.attribution.heatmap import shown

LINES = ("#7a7a7a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Grey for the reference, then the palette of the report's figures (Okabe and Ito 2008)."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 320, 46, 250, 14, 66
LONGEST_NAME = 30
CHART_STYLE = (
    ".chart{max-width:60rem;min-width:43rem;width:100%;height:auto;font:12px system-ui,sans-serif}"
    ".chart text{fill:currentColor}"
)
"""CSS of the charts; include it once per page. At its narrowest a letter is 9 px high."""


class Look(NamedTuple):
    """How a line is drawn: Look("#0072b2", "7 4")"""

    colour: str
    dash: str = ""
    """SVG's stroke-dasharray; empty: solid."""


def line_chart(
    series: Mapping[str, Sequence[float | None]],
    *,
    steps: Sequence[str],
    unit: str,
    looks: Mapping[str, Look] | None = None,
) -> str:
    """An `<svg class="chart">`, a line per series with its name at its end; a gap where a value is None.

    Args:
        series: name -> a value per step; a shorter one ends earlier.
        steps: the text under each step.
        unit: of the values.
        looks: name -> how its line is drawn; None takes `LINES` in order.
    """
    values = [v for line in series.values() for v in line if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.08 or 0.5  # the curves fill the chart: what is compared is small beside their level
    low, top = low - room, high + room
    wide = (WIDTH - LEFT - RIGHT) / max(len(steps) - 1, 1)

    def at(step: int, value: float) -> tuple[float, float]:
        return LEFT + step * wide, TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (top - low))

    ticks = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at(0, v)[1]:.1f}" y2="{at(0, v)[1]:.1f}" stroke="currentColor" '
        f'opacity=".15"/><text x="{LEFT - 6}" y="{at(0, v)[1] + 4:.1f}" text-anchor="end">{v:.2f}</text>'
        for v in (low, (low + top) / 2, top)
    )
    every = -(-len(steps) // 40)  # at most 40 labels
    labels = "".join(
        f'<text transform="translate({at(t, low)[0] + 4:.1f},{HEIGHT - BOTTOM + 10}) rotate(-60)" text-anchor="end" '
        f'font-size="11">{shown(piece[:12])}</text>'
        for t, piece in enumerate(steps)
        if t % every == 0
    )
    lines, ends = [], []
    for number, (name, line) in enumerate(series.items()):
        look = looks[name] if looks else Look(LINES[number % len(LINES)])
        points = [at(t, v) for t, v in enumerate(line) if v is not None]
        path = "".join(
            f"{'L' if t and line[t - 1] is not None else 'M'}{at(t, v)[0]:.1f},{at(t, v)[1]:.1f}"
            for t, v in enumerate(line)
            if v is not None
        )
        dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
        lines.append(f'<path d="{path}" fill="none" stroke="{look.colour}" stroke-width="2"{dash}/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{look.colour}"/>' for x, y in points]
        if points:
            ends.append((points[-1][1], name, look.colour))
    names, below = [], 0.0
    for number, (y, name, colour) in enumerate(sorted(ends)):
        below = max(min(y, HEIGHT - 8 - 15 * (len(ends) - 1 - number)), below + 15)
        names.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{below + 4:.1f}" style="fill:{colour};font-weight:600">'
            f"{escape(name if len(name) <= LONGEST_NAME else '…' + name[1 - LONGEST_NAME :])}</text>"
        )
    title = f"{unit} at each step: {', '.join(series)}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f'{ticks}<text x="{LEFT}" y="{TOP - 2}" font-size="11">{escape(unit)}</text>{labels}{"".join(lines)}'
        f"{''.join(names)}</svg>"
    )
