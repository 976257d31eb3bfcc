"""All figures of the report, with their captions: drawn, written as SVG and PNG, and ready for page and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detoxlens.params.report import ReportConfig
from detoxlens.reporting import curve_figures, figures, html
from detoxlens.reporting.costs_figure import costs_figure
from detoxlens.reporting.curves import CurvePoint, TrainingPoint
from detoxlens.reporting.dose_figure import dose
from detoxlens.reporting.overview_figure import overview
from detoxlens.reporting.study import Study
from detoxlens.reporting.style import render, svg
from detoxlens.reporting.training_figure import training
from detoxlens.reporting.word_figure import has_onsets, onset_figure

SMALLEST = 84
"""Pixels per inch of a figure at its narrowest: 8 pt are then 9 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure and its caption: Picture(name="figure1", title="Figure 1", caption="...", svg=b"<svg ...", ...)."""

    name: str
    title: str
    caption: str
    svg: bytes
    narrow_svg: bytes
    """Its panels one below the other, for a telephone."""
    width_px: int

    @property
    def html(self) -> str:
        return html.picture(self.name, self.title, self.caption, self.svg, self.narrow_svg, width_px=self.width_px)

    @property
    def markdown(self) -> str:
        return f"![{self.title}](figures/{self.name}.png)\n\n**{self.title}** {self.caption}"


def draw_pictures(
    study: Study,
    metrics: Mapping[str, Any],
    points: Sequence[CurvePoint],
    steps: Sequence[TrainingPoint],
    config: ReportConfig,
    groups: Mapping[str, str],
    folder: Path,
) -> dict[str, Picture]:
    """Writes `<name>.svg` and `<name>.png` into `folder`; returns the pictures by name."""
    threshold, few = config.toxic_group_threshold, config.min_sequences_per_step
    drawn = [
        (
            "overview",
            "Toxicity against the use of the prompt and against fluency",
            "A point per variant and seed, a colour per method; lines: 95 % intervals. Use of the prompt: the model "
            "effect on prompt entropy, variant minus base on the same text and positions, so base lies at 0. Fluency: "
            f"perplexity under base. Toxicity by {study.grader} on {config.primary_split}.",
            partial(overview, metrics, groups, config.primary_split),
        ),
        (
            "toxicity_rates",
            "Toxic completions",
            f"Share with toxicity > .5 by {study.grader}, 95 % intervals over prompts.",
            partial(figures.toxicity_rates, metrics, study.splits),
        ),
        (
            "figure1",
            "Figure 1: is the prompt read otherwise where the text is toxic?",
            f"Every model reads the same text, base's completions; red: toxic (> {threshold:g}), grey: the others, "
            "grouped by base's toxicity as in the paper, with pointwise 95 % intervals. Below: toxic minus other with "
            f"a simultaneous 95 % band over the steps; dotted: base's. A curve ends where fewer than {few} completions "
            "are left in a group.",
            partial(curve_figures.figure1, points, metrics, groups),
        ),
        (
            "model_effect",
            "What the model does, token by token",
            "Variant minus base, both reading base's completions: the same text at the same position, so that only the "
            "model differs. Simultaneous 95 % bands over the steps: where a band leaves 0, the difference is shown.",
            partial(curve_figures.model_effect, points, metrics, groups),
        ),
        (
            "toxicity_distribution",
            "Toxicity at every threshold",
            f"Share of {config.primary_split} completions above each toxicity: what hinges on .5 shows here.",
            partial(figures.toxicity_distribution, study, config.primary_split),
        ),
        (
            "costs",
            "Toxicity against each cost",
            "A point per variant; left and below is better. Filled and joined by the line: no other variant is less "
            "toxic at no higher cost (the Pareto front, of the estimates: intervals are in the tables).",
            partial(costs_figure, metrics, groups, study.splits, config),
        ),
        (
            "training",
            "Training",
            "Losses of fine-tuning; PPO's reward beside the toxicity by a grader that it is not trained on (a reward "
            "that rises while toxicity does not fall is a hacked one); PPO's distance from base.",
            partial(training, steps, metrics),
        ),
    ]
    if any("dose" in found for variants in metrics.values() for found in variants.values()):
        drawn.append(
            (
                "dose",
                "Adapters at several strengths",
                "Each line is one adapter, scaled: dots are strengths, the large one (1) is the variant as trained, "
                "and strength 0 is base. Methods are compared fairly where their lines have the same toxicity: by "
                "their vertical distance there. Entropy and dependence: model effects on the same text.",
                partial(dose, metrics, groups),
            )
        )
    if has_onsets(metrics):
        drawn.append(
            (
                "toxic_words",
                "Prompt use around the onset of toxicity",
                "Every model reads base's completions. Lag 0 is the token (or word) with which the text so far turns "
                "toxic to the grader; minus controls: other completions at the same step that have not turned toxic by "
                "then. Of the user's text alone; simultaneous 95 % bands over the lags, prompts resampled.",
                partial(onset_figure, metrics, groups),
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, title, caption, draw in drawn:
        images = render(wide := draw(narrow=False))
        for kind, data in images.items():
            (folder / f"{name}.{kind}").write_bytes(data)
        pictures[name] = Picture(
            name=name,
            title=title,
            caption=caption,
            svg=images["svg"],
            narrow_svg=svg(draw(narrow=True)),
            width_px=round(SMALLEST * wide.get_figwidth()),
        )
    return pictures
