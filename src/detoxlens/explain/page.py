"""An `Explanation` as one HTML file that loads nothing: facts, the heat map, and the measures of every generated token.

All text is escaped: prompt and completion may hold anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

from detoxlens.attribution.heatmap import heatmap_html, shown, underlined_html
from detoxlens.explain.explanation import Explanation
from detoxlens.reporting.page_style import STYLE as _PAGE_STYLE

STYLE = _PAGE_STYLE + (
    ".measures th:first-child{text-align:left;white-space:pre;font-family:ui-monospace,monospace;padding-left:0}"
    ".measures tbody th{border-bottom:1px solid var(--line);font-weight:400}dd{white-space:pre-wrap}"
)


def page(explanation: Explanation) -> str:
    """The file's text."""
    facts = {
        "Model": escape(explanation.checkpoint),
        "Method": f"{explanation.method}, target {explanation.target}",
        "Prompt": marked_html(explanation.prompt_pieces, explanation.toxic_prompt),
        "Completion": marked_html(explanation.completion_pieces, explanation.toxic_completion),
        "In short": explanation.summary(),
        **toxic_facts(explanation),
    }
    unit = explanation.unit
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>detoxlens explain</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>What each generated {unit} drew on</h1>\n"
        f"{facts_html(facts)}\n"
        f'<p class="caption">Attribution: rows are generated {unit}s, columns the {unit}s before them; a line parts '
        "prompt and completion. The darkest cell of a row holds its largest share, blank is none; each cell's number "
        f'shows when the pointer rests on it.</p>\n<div class="wide">{map_html(explanation)}</div>\n'
        f'<h2>Per generated {unit}</h2>\n<p class="caption">Prompt entropy: over how many prompt tokens the '
        "attribution is spread. Dependence: "
        f'its share on the prompt, 1 at the first {unit} by definition.</p>\n<div class="wide">{_measures(explanation)}'
        "</div>\n</body></html>\n"
    )


def map_html(explanation: Explanation) -> str:
    """The heat map, toxic words underlined."""
    return heatmap_html(
        explanation.scores,
        explanation.prompt_pieces,
        explanation.completion_pieces,
        token_prob=explanation.token_prob,
        underlined=explanation.toxic,
    )


def marked_html(pieces: Sequence[str], toxic: Collection[int]) -> str:
    """The text of the pieces, escaped, those of toxic words underlined."""
    return "".join(underlined_html(escape(piece)) if i in toxic else escape(piece) for i, piece in enumerate(pieces))


def toxic_facts(explanation: Explanation) -> dict[str, str]:
    """What an underline means, where toxic words were looked for."""
    said = explanation.toxic_summary()
    return {"Underlined": escape(said)} if said else {}


def facts_html(facts: Mapping[str, str]) -> str:
    """What is shown, as a box of names (plain text) and values (ready HTML)."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in facts.items())
    return f'<div class="provenance"><dl>{listed}</dl></div>'


def _measures(explanation: Explanation) -> str:
    heads = [explanation.unit, "probability", "prompt entropy, bits", "dependence on the prompt"]
    columns = [explanation.token_prob, explanation.entropy_bits(), explanation.dependence()]
    if explanation.contrast_pieces is not None:
        heads.append("instead of")
    rows = []
    for t, piece in enumerate(explanation.completion_pieces):
        cells = ["–" if column[t] is None else f"{column[t]:.3f}" for column in columns]
        if explanation.contrast_pieces is not None:
            cells.append(shown(explanation.contrast_pieces[t]))
        name = underlined_html(shown(piece)) if t in explanation.toxic_completion else shown(piece)
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    return f'<table class="measures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
