"""The figure of toxic words: prompt use around the onset of toxicity, every model reading base's completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from detoxlens.common.names import BASE, shown_name
from detoxlens.reporting.curve_figures import first_seeds
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.style import FAINT, colours, house_style, label_ends, note
from detoxlens.reporting.table import value_at

Json = Mapping[str, Any]
ROWS = (
    ("prompt entropy, bits", "prompt_entropy_bits"),
    ("prompt dependence", "prompt_dependence"),
)
"""Axis and measure; both of the user's text alone."""


def has_onsets(metrics: Json) -> bool:
    """Whether there is a point to draw."""
    return any(
        point["value"] is not None
        for of in metrics.values()
        for found in of.values()
        for _, measure in ROWS
        for point in value_at(found, "attribution", "toxic_words", "event_study", measure) or []
    )


def onset_figure(metrics: Json, groups: Mapping[str, str], *, narrow: bool = False) -> Figure:
    """Minus matched controls, a line per method (its first seed), with simultaneous bands over the lags."""
    with house_style():
        size = (1.0 + max(3.9 * len(metrics), 5.2), 0.6 + 2.2 * len(ROWS))
        figure, panels = grid(len(ROWS), len(metrics), size, narrow=narrow, share_x="col", share_y="row")
        labels = []
        for column, (model, variants) in enumerate(metrics.items()):
            names = first_seeds(variants, groups)
            colour = colours([BASE, *(name for name in names if name != BASE)])
            for row, (_, measure) in enumerate(ROWS):
                panel, ends = panels[row][column], []
                for variant in names:
                    study = value_at(variants[variant], "attribution", "toxic_words", "event_study", measure) or []
                    points = [p for p in study if p["value"] is not None]
                    if not points:
                        continue
                    lags = [p["lag"] for p in points]
                    band = [p["band_lo"] for p in points], [p["band_hi"] for p in points]
                    panel.fill_between(lags, *band, color=colour[variant], alpha=0.12, linewidth=0)
                    panel.plot(lags, [p["value"] for p in points], color=colour[variant], marker="o", markersize=3)
                    ends.append((lags[-1], points[-1]["value"], shown_name(variant), colour[variant]))
                if not ends:
                    note(panel, "too few completions that turn toxic")
                    continue
                panel.axhline(0, color=FAINT, linewidth=0.8)
                panel.axvline(0, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
                labels.append((panel, ends))
            panels[0][column].set_title(model)
            panels[-1][column].set_xlabel("tokens after the onset of toxicity")
            panels[-1][column].xaxis.get_major_locator().set_params(integer=True)
        for row, (name, _) in enumerate(ROWS):
            panels[row][0].set_ylabel(f"{name},\nminus controls")
        if narrow:
            say_everywhere(panels)
        figure.draw_without_rendering()
        for panel, ends in labels:
            panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
            label_ends(panel, ends)
        return figure
