"""A comparison as one HTML file that loads nothing: curves overlaid, heat maps side by side, differences per token.

All text is escaped: prompt and completion may hold anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from detoxlens.attribution.heatmap import change_map_html, shown, underlined_html
from detoxlens.explain.compare import Difference, differences, why_no_differences
from detoxlens.explain.explanation import Explanation
from detoxlens.explain.line_chart import CHART_STYLE, LINES, line_chart
from detoxlens.explain.page import STYLE as PAGE_STYLE
from detoxlens.explain.page import facts_html, map_html, marked_html, toxic_facts

STYLE = (
    PAGE_STYLE
    + CHART_STYLE
    + (
        ".side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:1rem 2rem}"
        ".side>section{min-width:0}.side h3{margin-top:.6rem}body{max-width:110rem}"
        ".swatch{display:inline-block;width:1.4rem;height:0;border-top:3px solid;vertical-align:middle;"
        "margin-right:.4rem}"
    )
)


def comparison_page(explanations: Sequence[Explanation]) -> str:
    """The file's text; the first checkpoint is what the others are compared with."""
    first, unit = explanations[0], explanations[0].unit
    facts = {
        "Prompt": marked_html(first.prompt_pieces, first.toxic_prompt),
        "Completion": marked_html(first.completion_pieces, first.toxic_completion),
        "Method": f"{first.method}, target {first.target}",
        "Compared with": escape(first.checkpoint),
        **toxic_facts(first),
    }
    maps = "".join(
        f"<section><h3>{_swatch(i)}{escape(e.checkpoint)}</h3><p class='caption'>{escape(e.summary())}</p>"
        f'<div class="wide">{map_html(e)}</div></section>'
        for i, e in enumerate(explanations)
    )
    found = differences(explanations)
    reason = why_no_differences(explanations)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>detoxlens compare</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{len(explanations)} checkpoints on one text</h1>\n"
        f"{facts_html(facts)}\n<h2>Prompt entropy at each generated {unit}</h2>\n"
        '<p class="caption">Over how many prompt tokens the attribution is spread, in bits: one example, so a '
        f'difference here is an observation, not a finding.</p>\n<div class="wide">{_chart(explanations)}</div>\n'
        "<h2>Attribution, side by side</h2>\n"
        f'<p class="caption">Rows are generated {unit}s, columns the {unit}s before them; a line parts prompt and '
        "completion. The darkest cell of a row holds its largest share, blank is none; each cell's number shows when "
        f'the pointer rests on it.</p>\n<div class="side">{maps}</div>\n'
        + (f'<p class="note">{escape(reason)}</p>\n' if reason else _differences(first, found))
        + "</body></html>\n"
    )


def _swatch(number: int) -> str:
    return f'<span class="swatch" style="color:{LINES[number % len(LINES)]}"></span>'


def _chart(explanations: Sequence[Explanation]) -> str:
    series = {e.checkpoint: e.entropy_bits() for e in explanations}
    longest = max(explanations, key=lambda e: len(e.completion_pieces))
    return line_chart(series, steps=longest.completion_pieces, unit="bits")


def _differences(first: Explanation, found: Sequence[Difference]) -> str:
    maps = "".join(
        f"<section><h3>{_swatch(i)}{escape(d.checkpoint)}</h3><p class='caption'>On average "
        f"{100 * d.mean_moved:.0f} % of the attribution lies elsewhere.</p>"
        f'<div class="wide">{_change_map(first, d)}</div></section>'
        for i, d in enumerate(found, start=1)
    )
    tables = "".join(
        f'<section><h3>{_swatch(i)}{escape(d.checkpoint)}</h3><div class="wide">{_measures(first, d)}</div></section>'
        for i, d in enumerate(found, start=1)
    )
    return (
        f"<h2>Less {escape(first.checkpoint)}</h2>\n"
        '<p class="caption">The attribution less that of the first checkpoint: red is more, blue is less, the '
        f'strongest colour is the largest change of the map.</p>\n<div class="side">{maps}</div>\n'
        f"<h2>Per generated {first.unit}, less {escape(first.checkpoint)}</h2>\n"
        '<p class="caption">Probability of the token, entropy over the prompt, share on the prompt; moved: the share '
        f'of the attribution that lies on other tokens.</p>\n<div class="side">{tables}</div>\n'
    )


def _change_map(first: Explanation, d: Difference) -> str:
    return change_map_html(d.share, first.prompt_pieces, first.completion_pieces, underlined=first.toxic)


def _measures(first: Explanation, d: Difference) -> str:
    heads = (first.unit, "probability", "entropy, bits", "dependence", "moved")
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    rows = []
    for t, piece in enumerate(first.completion_pieces):
        cells = ["–" if v is None else f"{v:+.3f}" for v in (d.prob[t], d.entropy_bits[t], d.dependence[t])]
        cells.append(f"{100 * d.moved[t]:.0f} %")
        name = underlined_html(shown(piece)) if t in first.toxic_completion else shown(piece)
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    return f'<table class="measures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
