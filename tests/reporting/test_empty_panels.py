"""Figures have a panel for what was measured and none for what was not; a legend is as wide as its figure at most."""

import pytest

from detoxlens.reporting.curve_figures import figure1
from detoxlens.reporting.curves import CurvePoint, TrainingPoint
from detoxlens.reporting.training_figure import training

METRICS = {"m": {"it": {}, "ft": {}, "rl": {}}}


def steps(variant, *metrics):
    return [TrainingPoint(model="m", variant=variant, metric=m, step=s, value=s) for m in metrics for s in (1, 2, 3)]


@pytest.mark.parametrize(
    "points, titles",
    [
        (steps("ft", "sft/loss", "sft/val_loss"), ["loss, nats per token"]),
        (
            steps("rl", "ppo/reward", "ppo/kl_nats_per_sequence"),
            ["reward and independent toxicity", "KL to base, nats per completion"],
        ),
        (steps("ft", "sft/loss") + steps("rl", "preference/loss"), ["loss, nats per token", "preference loss"]),
    ],
)
@pytest.mark.parametrize("narrow", [False, True])
def test_what_no_model_was_trained_by_has_no_panel(points, titles, narrow):
    panels = training(points, METRICS, narrow=narrow).axes
    assert [p.get_title(loc="left") or p.get_title() for p in panels] == titles
    assert all(panel.lines for panel in panels)


def curve(variant, group):
    return [
        CurvePoint(
            model="m",
            variant=variant,
            text="it",
            scope="prompt",
            measure="prompt_entropy_bits",
            group=group,
            step=step,
            mean=1.0,
            lo=0.9,
            hi=1.1,
            band_lo=0.8,
            band_hi=1.2,
            n=40,
            unit="bits",
        )
        for step in (1, 2, 3)
    ]


@pytest.mark.parametrize("variants", [["it"], ["it", "ft"], ["it", "ft", "rl", "dpo", "kto", "steer"]])
@pytest.mark.parametrize("narrow", [False, True])
def test_the_legend_of_figure_1_is_inside_of_the_figure(variants, narrow):
    points = [p for v in variants for group in ("toxic", "other", "toxic_minus_other") for p in curve(v, group)]
    figure = figure1(points, {"m": {v: {} for v in variants}}, {v: v for v in variants}, narrow=narrow)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    names = {text.get_text() for text in legend.texts}
    assert {"base's text, toxic", "base's text, other", "difference"} <= names
    assert legend.get_window_extent().x1 <= figure.bbox.x1
