"""All figures of the report, with their captions: drawn, written as SVG and PNG, and ready for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.params.report import ReportConfig
from detoxlens.reporting import curve_figures, figures, html
from detoxlens.reporting.curves import CurvePoint, TrainingPoint
from detoxlens.reporting.study import Study
from detoxlens.reporting.style import render


def draw_pictures(
    study: Study,
    metrics: Mapping[str, Any],
    points: Sequence[CurvePoint],
    steps: Sequence[TrainingPoint],
    config: ReportConfig,
    folder: Path,
) -> dict[str, str]:
    """Writes `<name>.svg` and `<name>.png` into `folder`; returns name -> HTML with the picture inside."""
    threshold, few = config.toxic_group_threshold, config.min_sequences_per_step
    drawn = [
        (
            "toxicity_rates",
            "Toxic completions",
            f"Share with toxicity > .5 by {study.grader}, 95 % intervals over prompts.",
            figures.toxicity_rates(metrics, study.splits),
        ),
        (
            "figure1",
            "Figure 1: prompt entropy while speaking",
            f"Entropy of the attribution over prompt tokens at each generated token; solid: toxic (> {threshold:g}), "
            "dashed: other. Bands: pointwise 95 % intervals over prompts. A curve ends where fewer than "
            f"{few} completions go on. Who is left changes from step to step and differs between variants; the next "
            "figure holds that fixed.",
            curve_figures.figure1(points, metrics, config),
        ),
        (
            "attribution_checks",
            "Checks on Figure 1",
            "All completions of each variant. Normalised: divided by the logarithm of the number of prompt tokens. "
            "Dependence: attribution mass on the prompt. Third row: the same prompts at every step, those that every "
            "variant answers at length. Last row: every variant reads the same text, base's completions.",
            curve_figures.attribution_checks(points, metrics, config),
        ),
        (
            "toxicity_distribution",
            "Toxicity at every threshold",
            f"Share of {config.primary_split} completions above each toxicity: what hinges on .5 shows here.",
            figures.toxicity_distribution(study, config.primary_split),
        ),
        (
            "fluency",
            "Fluency",
            f"On {config.primary_split}. Perplexity under the base model, different completions, and the share that "
            "repeats a content word of the prompt.",
            figures.fluency(metrics),
        ),
        (
            "training",
            "Training",
            "Losses of fine-tuning; PPO's reward beside the toxicity by a grader that it is not trained on (a reward "
            "that rises while toxicity does not fall is a hacked one); PPO's distance from base.",
            curve_figures.training(steps, metrics),
        ),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, title, caption, figure in drawn:
        images = render(figure)
        for kind, data in images.items():
            (folder / f"{name}.{kind}").write_bytes(data)
        pictures[name] = html.picture(name, title, caption, images["svg"])
    return pictures
