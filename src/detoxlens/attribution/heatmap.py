"""An attribution as an HTML table: generated tokens x tokens before them, darker is more, hover shows the value.

All text is escaped; the fragment has no script and loads nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

STYLE = (
    ".heatmap{border-collapse:collapse;font:12px/1.3 ui-monospace,monospace}"
    ".heatmap th{font-weight:400;padding:1px 3px;white-space:pre}.heatmap thead th{writing-mode:vertical-rl}"
    ".heatmap tbody th{text-align:right}.heatmap td{min-width:12px;height:16px;padding:0}"
    ".heatmap .generated{border-left:2px solid #888}"
    ".heatmap u{text-decoration:underline 2px;text-underline-offset:2px}"
)
"""CSS of the fragment; include it once per page."""
_COLOUR, _LESS = "180,40,20", "8,90,170"


def heatmap_html(
    scores: Sequence[Sequence[float]],
    prompt_pieces: Sequence[str],
    completion_pieces: Sequence[str],
    *,
    token_prob: Sequence[float] | None = None,
    underlined: Collection[int] = (),
) -> str:
    """A `<table class="heatmap">`, one row per generated token.

    Args:
        scores: row t over prompt and generated prefix, each summing to 1; of words, up to the word itself.
        prompt_pieces: text of each prompt token.
        completion_pieces: text of each generated token.
        token_prob: probability of each generated token, shown on hover.
        underlined: tokens whose names are underlined (toxic words), the prompt's from 0, the generated ones behind.
    """
    columns = [*prompt_pieces, *completion_pieces][: max(map(len, scores))]
    assert len(scores) == len(completion_pieces)
    names = _names([*prompt_pieces, *completion_pieces], underlined)
    head = "".join(f'<th{_edge(j, len(prompt_pieces))} scope="col">{names[j]}</th>' for j in range(len(columns)))
    rows = []
    for t, (row, piece) in enumerate(zip(scores, completion_pieces, strict=True)):
        hint = "" if token_prob is None else f' title="p = {token_prob[t]:.3f}"'
        darkest = max(row)
        cells = "".join(
            f'<td{_edge(j, len(prompt_pieces))} style="background:rgba({_COLOUR},{score / darkest:.2f})" '
            f'title="{shown(columns[j])} → {shown(piece)}: {score:.4f}"></td>'
            for j, score in enumerate(row)
        )
        rows.append(f'<tr><th scope="row"{hint}>{names[len(prompt_pieces) + t]}</th>{cells}</tr>')
    return f'<table class="heatmap"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def change_map_html(
    changes: Sequence[Sequence[float]],
    prompt_pieces: Sequence[str],
    completion_pieces: Sequence[str],
    *,
    underlined: Collection[int] = (),
) -> str:
    """A `<table class="heatmap">` of signed changes, red for more and blue for less, one scale for the whole map.

    Args:
        changes: row t over prompt and generated prefix, -1..1.
        prompt_pieces: text of each prompt token.
        completion_pieces: text of each generated token.
        underlined: as in `heatmap_html`.
    """
    columns = [*prompt_pieces, *completion_pieces][: max(map(len, changes))]
    names = _names([*prompt_pieces, *completion_pieces], underlined)
    most = max((abs(change) for row in changes for change in row), default=0.0) or 1.0
    head = "".join(f'<th{_edge(j, len(prompt_pieces))} scope="col">{names[j]}</th>' for j in range(len(columns)))
    rows = []
    for t, (row, piece) in enumerate(zip(changes, completion_pieces, strict=True)):
        cells = "".join(
            f'<td{_edge(j, len(prompt_pieces))} style="background:rgba({_COLOUR if change > 0 else _LESS},'
            f'{abs(change) / most:.2f})" title="{shown(columns[j])} → {shown(piece)}: {change:+.4f}"></td>'
            for j, change in enumerate(row)
        )
        rows.append(f'<tr><th scope="row">{names[len(prompt_pieces) + t]}</th>{cells}</tr>')
    return f'<table class="heatmap"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _names(pieces: Sequence[str], underlined: Collection[int]) -> list[str]:
    return [underlined_html(shown(piece)) if j in underlined else shown(piece) for j, piece in enumerate(pieces)]


def underlined_html(ready: str) -> str:
    """Escaped text with a line under it, but for the spaces that it begins with."""
    text = ready.lstrip(" ")
    return f"{' ' * (len(ready) - len(text))}<u>{text}</u>"


def _edge(column: int, num_prompt: int) -> str:
    return ' class="generated"' if column == num_prompt else ""


def shown(piece: str) -> str:
    """The token's text, escaped, white space made visible."""
    if piece.isspace():
        piece = piece.replace(" ", "␣")
    return escape(piece.replace("\n", "⏎").replace("\t", "⇥") or "∅", quote=True)
