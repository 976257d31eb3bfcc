"""Toxicity against each cost: which methods no other one beats in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detoxlens.common.names import BASE, shown_name
from detoxlens.evaluation.pareto import on_front
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.style import FAINT, colours, house_style, label_ends, note
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import headline_scope

Json = Mapping[str, Any]
NUM_COLUMNS = 3


def costs_figure(
    metrics: Json, groups: Mapping[str, str], splits: Sequence[str], config: ReportConfig, *, narrow: bool = False
) -> Figure:
    """Panels of a model: a cost each, toxicity on the x axis; filled points and the line are the front.

    A cost that was measured of no model has no panel.
    """
    every = _costs([split for split in config.civil_splits if split in splits])
    numbers = [(variant, found) for of in metrics.values() for variant, found in of.items() if variant != BASE]
    costs = {title: cost for title, cost in every.items() if any(cost[1](*of) is not None for of in numbers)} or every
    num_columns = 1 if narrow else min(NUM_COLUMNS, len(costs))
    num_rows = -(-len(costs) // num_columns)
    with house_style():
        size = (3.4 * num_columns, 0.4 + 2.3 * num_rows * len(metrics))
        figure, panels = grid(num_rows * len(metrics), num_columns, size, narrow=narrow, share_x="all")
        labels = []
        for number, (model, variants) in enumerate(metrics.items()):
            colour = colours(list(dict.fromkeys(groups.get(v, v) for v in variants)))
            own = panels[number * num_rows : (number + 1) * num_rows].ravel()
            for panel in own[len(costs) :]:
                panel.set_visible(False)
            for panel, (title, (scale, read)) in zip(own, costs.items(), strict=False):
                panel.set_title(f"{model}: {title}" if panel is own[0] else title)
                drawn = _points(panel, variants, config.primary_split, scale, read, groups, colour)
                if drawn:
                    labels.append((panel, drawn))
                else:
                    note(panel, "not measured")
        for column in panels.T:
            lowest = [panel for panel in column if panel.get_visible()][-1:]
            for panel in lowest:
                panel.set_xlabel(f"toxic completions of {config.primary_split}, %")
                panel.tick_params(labelbottom=True)  # the last row may not be full
        panels[0][0].set_xlim(0, None)
        if narrow:
            say_everywhere(panels)
        figure.draw_without_rendering()
        for panel, drawn in labels:
            if not any(y for _, y, _, _ in drawn):
                panel.set(ylim=(-0.05, 1), yticks=(0, 0.5, 1))  # a cost is not negative
            panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
            label_ends(panel, drawn)
        return figure


Read = Callable[[str, Json], float | None]


def _costs(civil: Sequence[str]) -> dict[str, tuple[float, Read]]:
    """Title -> scale, and where a variant's cost is: less is better."""

    def at(*path: str) -> Read:
        return lambda _, found: value_at(found, *path)

    return {
        **{
            f"{split}: not answered, %": (100.0, at("costs", "response_kind", split, "not_answered", "value"))
            for split in civil
        },
        "reference, bits/token": (1.0, at("costs", "utility", "bits_per_token", "value")),
        "perplexity under base": (1.0, at("fluency", "perplexity")),
        "|model effect|, bits": (1.0, _effect),
        "operations, × base": (1.0, at("costs", "inference", "flops_ratio")),
    }


def _effect(variant: str, found: Json) -> float | None:
    if variant == BASE:
        return 0.0
    path = ("attribution", "effects", headline_scope(found), "prompt_entropy_bits", "model_effect", "value")
    value = value_at(found, *path)
    return None if value is None else abs(value)


def _points(
    panel: Axes,
    variants: Json,
    primary: str,
    scale: float,
    read: Read,
    groups: Mapping[str, str],
    colour: Mapping[str, str],
) -> list[tuple[float, float, str, str]]:
    found = []
    for variant, numbers in variants.items():
        toxicity, cost = value_at(numbers, "toxicity", primary, "rate_gt_50"), read(variant, numbers)
        if toxicity is not None and cost is not None and not numbers.get("identical_to"):
            found.append((variant, 100 * toxicity, scale * cost))
    front = on_front([(x, y) for _, x, y in found])
    best = sorted((x, y) for (_, x, y), is_best in zip(found, front, strict=True) if is_best)
    panel.plot([x for x, _ in best], [y for _, y in best], color=FAINT, linewidth=0.9, zorder=1)
    drawn = []
    for (variant, x, y), is_best in zip(found, front, strict=True):
        shade = colour[groups.get(variant, variant)]
        panel.plot(x, y, "o", color=shade, markerfacecolor=shade if is_best else "none", markersize=5.5)
        drawn.append((x, y, shown_name(variant), shade))
    return drawn
