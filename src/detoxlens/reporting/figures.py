"""Figures about toxicity: rates with their intervals, and the whole distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from detoxlens.common.names import shown_name
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.study import Study
from detoxlens.reporting.style import FAINT, colours, house_style, label_ends, note

Json = Mapping[str, Any]
Point = tuple[float | None, Sequence[float] | None]
"""Value and interval."""
Column = tuple[str, str, Callable[[Json], Point]]
"""Title, format of a value, where to find it in a variant's metrics."""


def toxicity_rates(metrics: Json, splits: Sequence[str], *, narrow: bool = False) -> Figure:
    """Table 1 as a picture: a row per model, a panel per split, a dot with its interval per variant."""

    def column(split: str) -> Column:
        return split, "{:.1f}", lambda v: _scaled(v["toxicity"][split]["rate_gt_50"], v["toxicity"][split]["ci95"], 100)

    return _dots(metrics, [column(split) for split in splits], "toxic completions, % (95 % interval)", narrow=narrow)


def _dots(metrics: Json, columns: Sequence[Column], x_label: str, *, narrow: bool) -> Figure:
    num_variants = max(len(variants) for variants in metrics.values())
    with house_style():
        size = (1.2 + 2.6 * len(columns), 0.6 + len(metrics) * (0.55 + 0.32 * num_variants))
        figure, panels = grid(len(metrics), len(columns), size, narrow=narrow, share_x="all")
        for row, (model, variants) in enumerate(metrics.items()):
            for panel, (title, form, find) in zip(panels[row], columns, strict=True):
                colour = colours(list(variants))
                for i, (variant, found) in enumerate(variants.items()):
                    value, ci95 = find(found)
                    if value is None:
                        panel.text(0, i, " nothing measured", va="center", color=FAINT, fontsize=8)
                        continue
                    if ci95:
                        panel.plot(ci95, [i, i], color=colour[variant], linewidth=2, alpha=0.6)
                    panel.plot(value, i, "o", color=colour[variant], markersize=5)
                    panel.annotate(
                        form.format(value),
                        (max([value, *(ci95 or [])]), i),
                        xytext=(6, 0),
                        textcoords="offset points",
                        va="center",
                        fontsize=8,
                        color=colour[variant],
                    )
                panel.set(ylim=(len(variants) - 0.4, -0.6), yticks=range(len(variants)))
                panel.set_yticklabels([shown_name(v) for v in variants] if narrow or panel is panels[row][0] else [])
                panel.grid(axis="y", visible=False)
                panel.tick_params(axis="y", length=0)
                if row == 0:
                    panel.set_title(title, loc="center" if len(metrics) == 1 else "left")
            panels[row][0].set_ylabel(model, fontweight="bold", rotation=90)
        panels[-1][0].set_xlim(0, 1.25 * max(panels[-1][0].get_xlim()[1], 1e-9))  # room for the numbers
        figure.supxlabel(x_label, fontsize=9)
        if narrow:
            say_everywhere(panels)
        return figure


def toxicity_distribution(study: Study, split: str, *, narrow: bool = False) -> Figure:
    """Share of completions above every toxicity: where a line crosses .5 is Table 1, so no threshold is privileged."""
    with house_style():
        size = (0.8 + 3.9 * len(study.models), 3.2)
        figure, all_panels = grid(1, len(study.models), size, narrow=narrow, share_y="row")
        panels = all_panels[0]
        for panel, (model, variants) in zip(panels, study.models.items(), strict=True):
            panel.set_title(model)
            colour = colours(list(variants))
            ends, unscored = [], []
            for variant, tables in variants.items():
                toxicity = tables.by_completion(study.grader)[tables.mask("test", split)]
                values = np.sort(toxicity[~np.isnan(toxicity)])
                if not len(values):
                    unscored.append(shown_name(variant))
                    continue
                x, y = survival(values)
                panel.step(x, 100 * y, where="post", color=colour[variant])
                middle = 100 * float(np.mean(values > 0.5))
                panel.plot(0.5, middle, "o", color=colour[variant], markersize=4)
                ends.append((0.5, middle, f"{shown_name(variant)}  {middle:.1f} % above .5", colour[variant]))
            if not ends:
                note(panel, f"no scored completion of {split}")
                continue
            panel.set(xlim=(0, 1), ylim=(0, 100), xlabel=f"toxicity by {study.grader}")
            panel.axvline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
            figure.draw_without_rendering()
            label_ends(panel, ends)
            if unscored:
                panel.text(
                    0.98,
                    0.96,
                    f"nothing scored: {', '.join(unscored)}",
                    transform=panel.transAxes,
                    ha="right",
                    va="top",
                    fontsize=8,
                    color=FAINT,
                )
        panels[0].set_ylabel(f"completions of {split} above, %")
        if narrow:
            say_everywhere(all_panels)
        return figure


def survival(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (x, share of `values` > x) from 0 to 1 of sorted values in 0..1."""
    x = np.concatenate([[0.0], values, [1.0]])
    above = 1 - np.searchsorted(values, x, side="right") / len(values)
    return x, above


def _scaled(value: float | None, ci95: Sequence[float] | None, scale: float) -> Point:
    return (None if value is None else scale * value), (None if ci95 is None else [scale * end for end in ci95])
