"""Experiments as one HTML file that loads nothing: the table, and Figure 1 of every revision.

What `dvc plots diff` draws needs Vega from the network; these are inline SVG. A colour is a variant, dashes are a
revision, a panel is a model and a group of base's completions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from detoxlens.common.names import BASE, shown_name
from detoxlens.experiments.read import Revision
from detoxlens.experiments.terminal import COLUMNS, changes, rows_of
from detoxlens.explain.line_chart import CHART_STYLE, LINES, Look, line_chart
from detoxlens.reporting.page_style import STYLE

CURVES = "reports/entropy_curves.csv"
DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Of the first, second, ... revision."""
GROUPS = {"toxic": "toxic text of base", "other": "other text of base"}
Curves = Mapping[tuple[str, str, str], Sequence[float]]
"""(model, group, variant) -> prompt entropy in bits at each generated token of base's text."""


def curves_of(text: str) -> Curves:
    """The lines of Figure 1 in the text of entropy_curves.csv."""
    found: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        wanted = (row["measure"], row["text"], row["scope"]) == ("prompt_entropy_bits", BASE, "prompt")
        if wanted and row["group"] in GROUPS:
            key = row["model"], row["group"], row["variant"]
            found.setdefault(key, []).append((int(row["step"]), float(row["mean"])))
    return {key: [mean for _, mean in sorted(points)] for key, points in found.items()}


def read_curves(root: Path, revisions: Sequence[Revision]) -> dict[str, Curves]:
    """Name of a revision -> its curves; one whose table is neither here nor in DVC's cache has none."""
    import dvc.api
    from dvc.exceptions import DvcException

    found: dict[str, Curves] = {}
    for revision in revisions:
        try:
            if revision.rev == "workspace":
                found[revision.name] = curves_of((root / CURVES).read_text(encoding="utf-8"))
            else:
                found[revision.name] = curves_of(dvc.api.read(CURVES, repo=str(root), rev=revision.rev))
        except (OSError, DvcException):
            continue
    return found


def page(revisions: Sequence[Revision], curves: Mapping[str, Curves]) -> str:
    """The file's text.

    Args:
        revisions: the rows of the table.
        curves: from `read_curves`; more revisions than `DASHES` repeat them.
    """
    heads = ("experiment", "changed", "model/variant", *(head for head, *_ in COLUMNS))
    head = "".join(f'<th scope="col"{_left(i)}>{h}</th>' for i, h in enumerate(heads))
    rows = "".join(
        "<tr>" + "".join(f"<td{_left(i)}>{_lines(cell)}</td>" for i, cell in enumerate(cells)) + "</tr>"
        for revision in revisions
        for number, row in enumerate(rows_of(revision))
        for cells in [((revision.name, changes(revision)) if number == 0 else ("", "")) + row]
    )
    without = [revision.name for revision in revisions if revision.name not in curves]
    note = f"Without curves, which `dvc pull` may have: {escape(', '.join(without))}." if without else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>detoxlens experiments</title>'
        f"<style>{STYLE}{CHART_STYLE}</style></head><body>\n<h1>Experiments</h1>\n"
        '<p class="caption">What each changed, and the numbers that moved; rates of the primary split, without their '
        f'intervals.</p>\n<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>\n'
        "<h2>Prompt entropy at each generated token of base's text</h2>\n"
        f'<p class="caption">A colour is a variant, dashes are a revision. Bits, means over completions. '
        f"{note}</p>\n"
        f"{''.join(_panels(curves))}</body></html>\n"
    )


def _panels(curves: Mapping[str, Curves]) -> list[str]:
    keys = list(dict.fromkeys(key for of in curves.values() for key in of))
    variants = [BASE, *dict.fromkeys(variant for _, _, variant in keys if variant != BASE)]
    panels = []
    for model, group in dict.fromkeys((model, group) for model, group, _ in keys):
        series = {
            f"{shown_name(variant)}, {name}": (of[model, group, variant], look)
            for number, (name, of) in enumerate(curves.items())
            for variant in variants
            if (model, group, variant) in of
            for look in [Look(LINES[variants.index(variant) % len(LINES)], DASHES[number % len(DASHES)])]
        }
        steps = [str(t + 1) for t in range(max(len(line) for line, _ in series.values()))]
        chart = line_chart(
            {name: line for name, (line, _) in series.items()},
            steps=steps,
            unit="bits",
            looks={name: look for name, (_, look) in series.items()},
        )
        panels.append(f'<h3>{escape(model)}: {GROUPS[group]}</h3>\n<div class="wide">{chart}</div>\n')
    return panels


def _left(column: int) -> str:
    return ' class="left"' if column < 3 else ""


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
