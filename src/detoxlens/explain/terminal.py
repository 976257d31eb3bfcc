"""An `Explanation` in the terminal: generated tokens as rows, prompt tokens as columns, redder is more.

A long prompt is cut into several tables, each as wide as the terminal. A cell holds the share in per cent where it is
at least 1 %, so that nothing hangs on colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from detoxlens.explain.explanation import Explanation
from detoxlens.explain.preview import Previews

UNDERLINED = Style(underline=True)
WIDEST_TOKEN = 12
"""Columns of the terminal; a longer token ends in `…`."""


def view(explanation: Explanation, *, width: int) -> RenderableType:
    """What `detoxlens explain` prints.

    Args:
        explanation: what to show.
        width: columns of the terminal.
    """
    parts: list[RenderableType] = [_shaded_prompt(explanation), *toxic_line(explanation), Text()]
    parts += table_of(
        explanation,
        width,
        heads=("p", "bits", "dep."),
        measures=[
            [_number(value) for value in row]
            for row in zip(explanation.token_prob, explanation.entropy_bits(), explanation.dependence(), strict=True)
        ],
        cell=lambda t, j, head: _cell(explanation.scores[t][j], explanation.scores[t][: explanation.num_prompt], head),
    )
    parts.append(Text(explanation.summary()))
    return Group(*parts)


def print_explanation(explanation: Explanation) -> None:
    """Prints it on standard output, coloured where that is a terminal."""
    console = Console(highlight=False)
    console.print(view(explanation, width=console.width))


REGIONS = {"template": "dim", "system": "magenta", "user": "bold cyan", "earlier": "yellow"}
"""Region of a prompt token -> its style."""


def print_previews(found: Previews) -> None:
    """Prints each prompt as the model reads it, coloured by region, then its tokens with their ids."""
    console = Console(highlight=False)
    legend = Text.assemble("Regions: ", *((f"{name} ", style) for name, style in REGIONS.items()))
    console.print(legend)
    for one in found.shown:
        text, tokens = Text(), []
        for piece, token, region in zip(one.pieces, one.prompt.ids, one.prompt.regions, strict=True):
            visible = "".join(c if c.isprintable() or c == "\n" else "�" for c in piece)
            text.append(visible.replace("\n", "⏎\n"), style=REGIONS[region])
            tokens.append(Text.assemble((shown(piece), REGIONS[region]), " ", (str(token), "dim")))
        console.print(Text(), text, Columns(tokens), Text(f"{len(one.prompt.ids)} tokens", style="dim"), sep="\n")


def shown(piece: str, *, widest: int = WIDEST_TOKEN) -> str:
    """A token as one printable line: white space and control characters made visible, cut to `widest`."""
    text = piece.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")
    text = "".join(c if c.isprintable() else "�" for c in text) or "∅"
    return text if len(text) <= widest else text[: widest - 1] + "…"


def _shaded_prompt(explanation: Explanation) -> Text:
    """The prompt as text, each token shaded by its mean attribution over all generated tokens."""
    means = [sum(row[j] for row in explanation.scores) for j in range(explanation.num_prompt)]
    text = Text("Prompt, by mean attribution (darkest = most)\n", style="bold")
    for j, (piece, mean) in enumerate(zip(explanation.prompt_pieces, means, strict=True)):
        visible = "".join(c if c.isprintable() or c == "\n" else "�" for c in piece)
        style = _shade(mean, max(means))
        text.append(visible.replace("\n", "⏎\n"), style=style + UNDERLINED if j in explanation.toxic_prompt else style)
    return text


def toxic_line(explanation: Explanation) -> list[Text]:
    """What is underlined, for readers without colours too; nothing where nobody looked for toxic words."""
    said = explanation.toxic_summary()
    return [Text(f"Underlined: {said}")] if said else []


def table_of(
    explanation: Explanation,
    width: int,
    *,
    heads: Sequence[str],
    measures: Sequence[Sequence[str]],
    cell: Callable[[int, int, str], Text],
) -> list[RenderableType]:
    """Generated tokens as rows and prompt tokens as columns, in as many tables as the width asks for.

    Args:
        explanation: whose tokens.
        width: columns of the terminal.
        heads: of the measures.
        measures: row t: the measures of generated token t, ready to be shown.
        cell: (t, j, the column's head) -> what stands at generated token t under prompt token j.
    """
    beside = [max(len(head), *(len(row[i]) for row in measures)) + 1 for i, head in enumerate(heads)]
    found: list[RenderableType] = []
    for block in _blocks(explanation, width - sum(beside)):
        found += [_table(explanation, block, heads, measures, cell), Text()]
    return found


def _blocks(explanation: Explanation, width: int) -> Iterator[range]:
    """Ranges of prompt tokens that fit beside the row heads."""
    generated = max(len("generated"), *(len(shown(p)) for p in explanation.completion_pieces))
    instead = 0 if explanation.contrast_pieces is None else WIDEST_TOKEN + 1
    room = max(width - generated - 1 - instead, WIDEST_TOKEN + 1)
    start = used = 0
    for j, piece in enumerate(explanation.prompt_pieces):
        need = max(len(shown(piece)), 3) + 1
        if used + need > room and j > start:
            yield range(start, j)
            start, used = j, 0
        used += need
    yield range(start, explanation.num_prompt)


def _table(
    explanation: Explanation,
    block: range,
    heads: Sequence[str],
    measures: Sequence[Sequence[str]],
    cell: Callable[[int, int, str], Text],
) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("generated", no_wrap=True)
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True, style="dim")
    contrast = explanation.contrast_pieces
    if contrast is not None:
        table.add_column("instead of", no_wrap=True)
    for j in block:
        style = "dim" if explanation.is_template[j] else "underline" if j in explanation.toxic_prompt else ""
        table.add_column(Text(shown(explanation.prompt_pieces[j]), style=style), justify="right", no_wrap=True)
    for t, piece in enumerate(explanation.completion_pieces):
        cells = [cell(t, j, shown(explanation.prompt_pieces[j])) for j in block]
        instead = [] if contrast is None else [Text(shown(contrast[t]))]
        name = Text(shown(piece), style="underline" if t in explanation.toxic_completion else "")
        table.add_row(name, *measures[t], *instead, *cells)
    return table


def _cell(score: float, prompt_row: Sequence[float], head: str) -> Text:
    """The share in per cent on its colour, as wide as the column; the row's largest is the darkest."""
    percent = round(100 * score)
    return Text((str(percent) if percent else "").rjust(max(len(head), 2)), style=_shade(score, max(prompt_row)))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _shade(score: float, most: float) -> Style:
    """White to dark red, the text on it legible."""
    share = score / most if most > 0 else 0.0
    red, green, blue = (round(255 + share * (end - 255)) for end in (165, 15, 21))
    text = "white" if share > 0.55 else "black"
    return Style(color=text, bgcolor=f"rgb({red},{green},{blue})")
