"""The figure of paths: toxicity against what else an adapter changes, from base on, a line per variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from detoxlens.common.names import shown_name
from detoxlens.reporting.dose_tables import HEADINGS
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.style import FAINT, colours, house_style, label_ends, note
from detoxlens.reporting.table import value_at

Json = Mapping[str, Any]


def dose(metrics: Json, groups: Mapping[str, str], *, narrow: bool = False) -> Figure:
    """A row per model with a path, a panel per quantity; dots are strengths, the large one the variant as trained."""
    models = {m: {v: f["dose"] for v, f in of.items() if "dose" in f} for m, of in metrics.items()}
    models = {model: of for model, of in models.items() if of}
    with house_style():
        size = (1.0 + 3.1 * len(HEADINGS), 0.6 + 2.7 * len(models))
        figure, panels = grid(len(models), len(HEADINGS), size, narrow=narrow)
        labels = []
        for row, (model, variants) in zip(panels, models.items(), strict=True):
            colour = colours(list(dict.fromkeys(groups.get(v, v) for v in metrics[model])))
            for panel, (quantity, heading) in zip(row, HEADINGS.items(), strict=True):
                ends = []
                for variant, found in variants.items():
                    points = [
                        (float(alpha), 100 * x, y)
                        for alpha, at in found["strengths"].items()
                        if (x := value_at(at, "toxicity", "value")) is not None
                        and (y := value_at(at, quantity, "value")) is not None
                    ]
                    if not points:
                        continue
                    shade = colour[groups.get(variant, variant)]
                    panel.plot([x for _, x, _ in points], [y for _, _, y in points], "o-", color=shade, markersize=2.5)
                    trained = [(x, y) for alpha, x, y in points if alpha == 1]
                    for x, y in trained:
                        panel.plot(x, y, "o", color=shade, markersize=6)
                    ends.append((*(trained or [points[-1][1:]])[0], shown_name(variant), shade))
                panel.set_title(heading)
                if ends:
                    panel.set_xlabel("toxic completions, %")
                    labels.append((panel, ends))
                    if quantity != "perplexity":
                        panel.axhline(0, color=FAINT, linewidth=0.8)
                else:
                    note(panel, "not measured")
            row[0].set_ylabel(model, fontweight="bold")
        if narrow:
            say_everywhere(panels)
        figure.draw_without_rendering()
        for panel, ends in labels:
            panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
            label_ends(panel, ends)
        return figure
