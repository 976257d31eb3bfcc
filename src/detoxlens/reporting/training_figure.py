"""The figure of training: losses, rewards and distance from base by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from detoxlens.common.names import shown_name
from detoxlens.reporting.curves import TrainingPoint
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.style import colours, house_style, label_ends, note

Json = Mapping[str, Any]
TRAINING = (
    ("loss, nats per token", (("sft/loss", "training", (0, (1, 1))), ("sft/val_loss", "validation", "-"))),
    (
        "reward and independent toxicity",
        (("ppo/reward", "reward", "-"), ("ppo/independent_toxicity", "toxicity", (0, (4, 1.6)))),
    ),
    ("KL to base, nats per completion", (("ppo/kl_nats_per_sequence", "KL", "-"),)),
)
"""Panels of the training figure: title, and (metric, name, line style) of each line."""
PREFERENCE = (
    "preference loss",
    (("preference/loss", "training", (0, (1, 1))), ("preference/val_loss", "validation", "-")),
)
"""Beside them where a variant is trained on pairs; log 2 (DPO) and 1/2 (KTO) before the first step."""


def training(points: Sequence[TrainingPoint], metrics: Json, *, narrow: bool = False) -> Figure:
    """One row per model: fine-tuning's losses; PPO's reward beside a toxicity it cannot see; PPO's KL; DPO's loss.

    What no model was trained by has no panel.
    """
    measured = {p.metric for p in points}
    shown = [panel for panel in (*TRAINING, PREFERENCE) if measured & {metric for metric, *_ in panel[1]}]
    shown = shown or TRAINING[:1]
    with house_style():
        size = (1.0 + 3.9 * len(shown), 0.6 + 2.4 * len(metrics))
        figure, panels = grid(len(metrics), len(shown), size, narrow=narrow)
        labels = []
        for row, (model, variants) in enumerate(metrics.items()):
            colour = colours(list(variants))
            for panel, (title, lines) in zip(panels[row], shown, strict=True):
                ends = []
                for variant in variants:
                    for metric, name, style in lines:
                        found = [p for p in points if (p.model, p.variant, p.metric) == (model, variant, metric)]
                        if not found:
                            continue
                        panel.plot(
                            [p.step for p in found],
                            [p.value for p in found],
                            color=colour[variant],
                            linestyle=style,
                            marker="o" if len(found) < 3 else None,
                            markersize=3,
                        )
                        ends.append((found[-1].step, found[-1].value, f"{shown_name(variant)} {name}", colour[variant]))
                if row == 0:
                    panel.set_title(title)
                if ends:
                    panel.set_xlabel("step")
                    labels.append((panel, ends))
                else:
                    note(panel, "not trained in this run")
            panels[row][0].set_ylabel(model, fontweight="bold")
        if narrow:
            say_everywhere(panels)
        figure.draw_without_rendering()
        for panel, ends in labels:
            panel.set_xlim(*panel.get_xlim())
            label_ends(panel, ends)
        return figure
