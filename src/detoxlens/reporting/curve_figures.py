"""Figures about time: Figure 1 (prompt entropy while speaking), its checks, and training."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detoxlens.common.names import shown_name
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.curves import CurvePoint, TrainingPoint
from detoxlens.reporting.style import FAINT, colours, house_style, label_ends, note

Json = Mapping[str, Any]
Line = tuple[str, str, str, Sequence[CurvePoint]]
"""Name, colour, line style, points."""
TOXIC, OTHER = "-", (0, (4, 1.6))


def figure1(points: Sequence[CurvePoint], metrics: Json, config: ReportConfig) -> Figure:
    """Entropy of the attribution over prompt tokens at each generated token, toxic (solid) against other (dashed).

    Top: by the completion's own toxicity, as in the paper. Middle: by that of base's completion, the same prompts for
    every variant. Bottom: how many completions of the top panel are left. One column per model.
    """
    rows = {"by own toxicity": ("toxic", "other"), "by toxicity of base": ("toxic_by_it", "other_by_it")}
    with house_style():
        figure = Figure(figsize=(_width(len(metrics)), 6.6))
        panels = figure.subplots(3, len(metrics), squeeze=False, sharex="col", height_ratios=(1, 1, 0.4))
        drawn = []
        for column, (model, variants) in enumerate(metrics.items()):
            colour = colours(list(variants))
            panels[1][column].sharey(panels[0][column])
            for row, groups in enumerate(rows.values()):
                lines: list[Line] = [
                    (f"{shown_name(variant)} {word}", colour[variant], style, found)
                    for variant in variants
                    for group, word, style in zip(groups, ("toxic", "other"), (TOXIC, OTHER), strict=True)
                    if (
                        found := _select(
                            points, model, variant, "prompt_entropy_bits", variant, _own_name(variant, group)
                        )
                    )
                ]
                drawn.append((panels[row][column], lines, _missing(variants, lines, row, config)))
            for variant in variants:
                for group, style in (("toxic", TOXIC), ("other", OTHER)):
                    found = _select(points, model, variant, "prompt_entropy_bits", variant, group)
                    panels[2][column].plot(
                        [p.step for p in found],
                        [p.n for p in found],
                        color=colour[variant],
                        linestyle=style,
                        linewidth=1.1,
                    )
            panels[0][column].set_title(model)
            panels[2][column].set(xlabel="generated token", ylim=(0, None))
            panels[2][column].xaxis.get_major_locator().set_params(integer=True)
        for panel, lines, missing in drawn:
            _draw(panel, lines, missing)
        for row, name in enumerate(rows):
            panels[row][0].set_ylabel(f"prompt entropy, bits\n{name}")
        panels[2][0].set_ylabel("completions\nleft")
        _label(figure, drawn)
        return figure


def attribution_checks(points: Sequence[CurvePoint], metrics: Json, config: ReportConfig) -> Figure:
    """All completions of each variant: does the picture hold when length, survivors and text are held fixed?"""
    rows = {
        "normalised entropy": ("prompt_entropy_normalized", "own", "all"),
        "prompt dependence": ("prompt_dependence", "own", "all"),
        f"bits, same prompts\n(≥ {config.cohort_min_tokens} tokens everywhere)": (
            "prompt_entropy_bits",
            "own",
            "cohort",
        ),
        "bits, on the\ntext of base": ("prompt_entropy_bits", "it", "all"),
    }
    with house_style():
        figure = Figure(figsize=(_width(len(metrics)), 1.0 + 1.75 * len(rows)))
        panels = figure.subplots(len(rows), len(metrics), squeeze=False)
        drawn = []
        for column, (model, variants) in enumerate(metrics.items()):
            colour = colours(list(variants))
            for row, (measure, text, group) in enumerate(rows.values()):
                lines: list[Line] = [
                    (shown_name(variant), colour[variant], "-", found)
                    for variant in variants
                    if (found := _select(points, model, variant, measure, variant if text == "own" else text, group))
                ]
                missing = [n for n in map(shown_name, variants) if n not in {name for name, *_ in lines}]
                drawn.append((panels[row][column], lines, missing))
            panels[0][column].set_title(model)
            panels[-1][column].set_xlabel("generated token")
        for panel, lines, missing in drawn:
            _draw(panel, lines, missing)
        for row, name in enumerate(rows):
            panels[row][0].set_ylabel(name)
        _label(figure, drawn)
        return figure


TRAINING = (
    ("loss, nats per token", (("sft/loss", "training", (0, (1, 1))), ("sft/val_loss", "validation", "-"))),
    (
        "reward and independent toxicity",
        (("ppo/reward", "reward", "-"), ("ppo/independent_toxicity", "toxicity", (0, (4, 1.6)))),
    ),
    ("KL to base, nats per completion", (("ppo/kl_nats_per_sequence", "KL", "-"),)),
)
"""Panels of the training figure: title, and (metric, name, line style) of each line."""


def training(points: Sequence[TrainingPoint], metrics: Json) -> Figure:
    """One row per model: fine-tuning's losses; PPO's reward beside a toxicity that it cannot see; PPO's KL."""
    with house_style():
        figure = Figure(figsize=(1.0 + 3.9 * len(TRAINING), 0.6 + 2.4 * len(metrics)))
        panels = figure.subplots(len(metrics), len(TRAINING), squeeze=False)
        labels = []
        for row, (model, variants) in enumerate(metrics.items()):
            colour = colours(list(variants))
            for panel, (title, lines) in zip(panels[row], TRAINING, strict=True):
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
        figure.draw_without_rendering()
        for panel, ends in labels:
            panel.set_xlim(*panel.get_xlim())
            label_ends(panel, ends)
        return figure


def _width(num_models: int) -> float:
    """Inches: a single panel is wider than one of several."""
    return 1.4 + max(4.0 * num_models, 5.6)


def _own_name(variant: str, group: str) -> str:
    """For `it` the groups "by it" are its own."""
    return group.removesuffix("_by_it") if variant == "it" else group


def _select(
    points: Iterable[CurvePoint], model: str, variant: str, measure: str, text: str, group: str
) -> list[CurvePoint]:
    """Of the scope with the template, the headline's."""
    wanted = (model, variant, "prompt", measure, text, group)
    return [p for p in points if (p.model, p.variant, p.scope, p.measure, p.text, p.group) == wanted]


def _missing(variants: Json, lines: Sequence[Line], row: int, config: ReportConfig) -> list[str]:
    """`ft toxic (4)`: the groups too small to draw, with their number of completions."""
    names = {name for name, *_ in lines}
    missing = []
    for variant, found in variants.items():
        groups = found["attribution"]["groups" if row == 0 or variant == "it" else "groups_by_it"]
        for word in ("toxic", "other"):
            if f"{shown_name(variant)} {word}" not in names:
                missing.append(f"{shown_name(variant)} {word} ({groups[word]['num_sequences']})")
    return missing


def _draw(panel: Axes, lines: Sequence[Line], missing: Sequence[str]) -> None:
    if not lines:
        note(panel, f"too few completions for a curve:\n{', '.join(missing)}" if missing else "no attributions")
        return
    for _, colour, style, points in lines:
        steps = [p.step for p in points]
        panel.fill_between(steps, [p.lo for p in points], [p.hi for p in points], color=colour, alpha=0.11, linewidth=0)
        panel.plot(steps, [p.mean for p in points], color=colour, linestyle=style)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if missing:
        lines_of_text = textwrap.wrap(f"too few to draw: {', '.join(missing)}", 64)
        panel.set_title(panel.get_title(loc="left"), pad=8 + 10 * len(lines_of_text))
        panel.annotate(
            "\n".join(lines_of_text),
            (0, 1),
            xytext=(0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=7,
            color=FAINT,
        )


def _label(figure: Figure, drawn: Sequence[tuple[Axes, Sequence[Line], Sequence[str]]]) -> None:
    """Names the lines once the layout is settled."""
    figure.draw_without_rendering()
    for panel, lines, _ in drawn:
        ends = [(points[-1].step, points[-1].mean, name, colour) for name, colour, _, points in lines]
        panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
        label_ends(panel, ends)
