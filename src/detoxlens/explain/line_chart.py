"""Lines over steps as an inline SVG, in the page's own colours, names and text; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from detoxlens.attribution.heatmap import shown

LINES = ("#7a7a7a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Grey for the reference, then the palette of the report's figures (Okabe and Ito 2008)."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 320, 46, 190, 12, 66


def line_chart(series: Mapping[str, Sequence[float | None]], *, steps: Sequence[str], unit: str) -> str:
    """An `<svg class="chart">`, a line per series with its name at its end; a gap where a value is None.

    Args:
        series: name -> a value of at least 0 per step; a shorter one ends earlier.
        steps: the text under each step.
        unit: of the values.
    """
    values = [v for line in series.values() for v in line if v is not None]
    top = max(values, default=0.0) or 1.0
    wide = (WIDTH - LEFT - RIGHT) / max(len(steps) - 1, 1)

    def at(step: int, value: float) -> tuple[float, float]:
        return LEFT + step * wide, TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    ticks = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at(0, v)[1]:.1f}" y2="{at(0, v)[1]:.1f}" stroke="currentColor" '
        f'opacity=".15"/><text x="{LEFT - 6}" y="{at(0, v)[1] + 4:.1f}" text-anchor="end">{v:.1f}</text>'
        for v in (0, top / 2, top)
    )
    every = -(-len(steps) // 40)  # at most 40 labels
    labels = "".join(
        f'<text transform="translate({at(t, 0)[0] + 4:.1f},{HEIGHT - BOTTOM + 10}) rotate(-60)" text-anchor="end" '
        f'font-size="11">{shown(piece[:12])}</text>'
        for t, piece in enumerate(steps)
        if t % every == 0
    )
    lines, ends = [], []
    for number, (name, line) in enumerate(series.items()):
        colour = LINES[number % len(LINES)]
        points = [at(t, v) for t, v in enumerate(line) if v is not None]
        path = "".join(
            f"{'L' if t and line[t - 1] is not None else 'M'}{at(t, v)[0]:.1f},{at(t, v)[1]:.1f}"
            for t, v in enumerate(line)
            if v is not None
        )
        lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in points]
        if points:
            ends.append((points[-1][1], name, colour))
    names, below = [], 0.0
    for y, name, colour in sorted(ends):
        below = max(y, below + 15)
        names.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{below + 4:.1f}" style="fill:{colour};font-weight:600">'
            f"{escape(name[-28:])}</text>"
        )
    title = f"{unit} at each step: {', '.join(series)}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f'{ticks}<text x="{LEFT}" y="{TOP - 2}" font-size="11">{escape(unit)}</text>{labels}{"".join(lines)}'
        f"{''.join(names)}</svg>"
    )
