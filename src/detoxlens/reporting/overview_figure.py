"""The report's one figure: how toxic, against what the model does with its prompt and against how fluent it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detoxlens.common.names import BASE, shown_name
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.style import FAINT, colours, house_style, label_ends, note
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import headline_scope

Json = Mapping[str, Any]
Point = tuple[float, Sequence[float] | None]
"""Value and interval."""


def overview(metrics: Json, groups: Mapping[str, str], primary: str, *, narrow: bool = False) -> Figure:
    """A row per model, a point per variant and seed (a colour per method): toxicity on the x axis of both panels."""
    with house_style():
        size = (9.2, 0.5 + 2.7 * len(metrics))
        figure, panels = grid(len(metrics), 2, size, narrow=narrow, share_x="all")
        labels = []
        for row, (model, variants) in zip(panels, metrics.items(), strict=True):
            colour = colours(list(dict.fromkeys(groups.get(v, v) for v in variants)))
            for panel, read in zip(row, (_effect, _perplexity), strict=True):
                drawn = []
                for variant, found in variants.items():
                    x, y = _rate(found, primary), read(variant, found)
                    if found.get("identical_to") or x is None or y is None:
                        continue
                    shade = colour[groups.get(variant, variant)]
                    _cross(panel, x, y, shade)
                    drawn.append((x[0], y[0], shown_name(variant), shade))
                if drawn:
                    labels.append((panel, drawn))
                else:
                    note(panel, "not measured")
            row[0].axhline(0, color=FAINT, linewidth=0.8)
            row[0].set_title(f"{model}: use of the prompt")
            row[0].set_ylabel("model effect on\nprompt entropy, bits")
            row[1].set_title(f"{model}: fluency")
            row[1].set_ylabel("perplexity under base")
        for panel in panels[-1]:
            panel.set_xlabel(f"toxic completions of {primary}, %")
        panels[0][0].set_xlim(0, None)
        if narrow:
            say_everywhere(panels)
        figure.draw_without_rendering()
        for panel, drawn in labels:
            low, high = panel.get_ylim()
            if high - low < 0.1 * abs(high):  # equal to the eye stays equal
                low, high = low - 0.1 * abs(high), high + 0.1 * abs(high)
            panel.set(xlim=panel.get_xlim(), ylim=(low, high))
            label_ends(panel, drawn)
        return figure


def _cross(panel: Axes, x: Point, y: Point, colour: str) -> None:
    if x[1]:
        panel.plot(x[1], [y[0], y[0]], color=colour, linewidth=1.4, alpha=0.55)
    if y[1]:
        panel.plot([x[0], x[0]], y[1], color=colour, linewidth=1.4, alpha=0.55)
    panel.plot(x[0], y[0], "o", color=colour, markersize=5.5)


def _rate(found: Json, primary: str) -> Point | None:
    toxicity = found["toxicity"][primary]
    if toxicity["rate_gt_50"] is None:
        return None
    return 100 * toxicity["rate_gt_50"], toxicity["ci95"] and [100 * end for end in toxicity["ci95"]]


def _effect(variant: str, found: Json) -> Point | None:
    """Base is what the effect is measured from."""
    if variant == BASE:
        return 0.0, None
    effect = value_at(found, "attribution", "effects", headline_scope(found), "prompt_entropy_bits", "model_effect")
    return effect and (effect["value"], effect["ci95"])


def _perplexity(_: str, found: Json) -> Point | None:
    measured = value_at(found, "fluency", "measures", "perplexity")
    return measured and (measured["value"], measured["ci95"])
