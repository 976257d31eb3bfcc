"""An `Explanation` as one HTML file that loads nothing: facts, the heat map, and the measures of every generated token.

All text is escaped: prompt and completion may hold anything.
"""

from __future__ import annotations

from html import escape

from detoxlens.attribution.heatmap import STYLE, heatmap_html, shown
from detoxlens.explain.explanation import Explanation

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222;background:#fff}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em}dt{color:#666}dd{margin:0;white-space:pre-wrap}"
    ".wide{overflow-x:auto}.measures{border-collapse:collapse}.measures th,.measures td{padding:1px .8em 1px 0;"
    "text-align:right;font-variant-numeric:tabular-nums}.measures th:first-child{text-align:left;white-space:pre;"
    "font-family:ui-monospace,monospace}"
)


def page(explanation: Explanation) -> str:
    """The file's text."""
    facts = {
        "Model": explanation.checkpoint,
        "Method": f"{explanation.method}, target {explanation.target}",
        "Prompt": "".join(explanation.prompt_pieces),
        "Completion": "".join(explanation.completion_pieces),
        "In short": explanation.summary(),
    }
    heatmap = heatmap_html(
        explanation.scores,
        explanation.prompt_pieces,
        explanation.completion_pieces,
        token_prob=explanation.token_prob,
    )
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    unit = explanation.unit
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>detoxlens explain</title>'
        f"<style>{_STYLE}{STYLE}</style></head><body>\n<h1>What each generated {unit} drew on</h1>\n<dl>{listed}</dl>\n"
        f"<p>Rows are generated {unit}s, columns the {unit}s before them; the darkest cell of a row holds its largest "
        f'share. Hover for values.</p>\n<div class="wide">{heatmap}</div>\n<h2>Per generated {unit}</h2>\n'
        f"{_measures(explanation)}\n</body></html>\n"
    )


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
        rows.append(f'<tr><th scope="row">{shown(piece)}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    return f'<table class="measures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
