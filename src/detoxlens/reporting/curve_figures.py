"""Figures by generated token: Figure 1 of the paper on the same text, and the model effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detoxlens.common.names import BASE, shown_name
from detoxlens.reporting.curves import CurvePoint, select
from detoxlens.reporting.panels import grid, say_everywhere
from detoxlens.reporting.style import FAINT, GREY, TOXIC_RED, colours, house_style, label_ends, note
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import headline_scope

Json = Mapping[str, Any]
ENTROPY = "prompt_entropy_bits"
OTHER_STYLE = (0, (4, 1.6))


def figure1(points: Sequence[CurvePoint], metrics: Json, groups: Mapping[str, str], *, narrow: bool = False) -> Figure:
    """Prompt entropy of each variant reading base's completions, toxic against other ones, and their difference.

    Two rows per model, a column per method (its first seed). The grouping is the paper's, by base's toxicity; the text
    is the same in every column, so that columns differ by the model alone. The difference has a simultaneous band.
    """
    firsts = [first_seeds(variants, groups) for variants in metrics.values()]
    num_columns = max(map(len, firsts))
    with house_style():
        figure, panels = grid(
            2 * len(metrics),
            num_columns,
            (0.9 + 2.5 * num_columns, 3.9 * len(metrics)),
            narrow=narrow,
            share_x="all",
            share_y="row",
            height_ratios=(1.2, 1) * len(metrics),
        )
        for i, ((model, variants), names) in enumerate(zip(metrics.items(), firsts, strict=True)):
            curves, differences = panels[2 * i], panels[2 * i + 1]
            base = _differences(points, model, BASE, variants)
            for column, variant in enumerate(names):
                _toxic_and_other(curves[column], points, model, variant, variants)
                _difference(differences[column], _differences(points, model, variant, variants), base, variant)
                curves[column].set_title(f"{model}: {shown_name(variant)}")
            for column in range(len(names), num_columns):
                curves[column].set_axis_off()
                differences[column].set_axis_off()
            curves[0].set_ylabel(f"prompt entropy, bits{_sizes(variants[BASE])}")
            differences[0].set_ylabel("toxic − other, bits")
        for panel in panels[-1]:
            panel.set_xlabel("generated token of base's text")
            panel.xaxis.get_major_locator().set_params(integer=True)
        if narrow:
            say_everywhere(panels)
        lines = {
            name: line for panel in panels.flat for line, name in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        if lines:
            _legend(figure, lines)
        return figure


def _legend(figure: Figure, lines: Mapping[str, Artist]) -> None:
    """Above the panels, in as few rows as the figure is wide enough for."""
    for ncols in range(len(lines), 0, -1):
        legend = figure.legend(lines.values(), lines.keys(), loc="outside upper left", ncols=ncols, frameon=False)
        figure.draw_without_rendering()
        if ncols == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _sizes(base: Json) -> str:
    """How many completions the two curves start with."""
    counts = value_at(base, "attribution", "contrast", "by_it", ENTROPY)
    return f"\n{counts['num_toxic']} toxic, {counts['num_other']} others" if counts else ""


def _toxic_and_other(panel: Axes, points: Sequence[CurvePoint], model: str, variant: str, variants: Json) -> None:
    scope = headline_scope(variants[variant])
    counts = value_at(variants[variant], "attribution", "contrast", "by_it", ENTROPY) or {}
    missing = []
    for group, colour, style in (("toxic", TOXIC_RED, "-"), ("other", GREY, OTHER_STYLE)):
        found = select(points, model=model, variant=variant, text=BASE, scope=scope, measure=ENTROPY, group=group)
        if not found:
            missing.append(f"{group} ({counts.get(f'num_{group}', 0)})")
            continue
        steps = [p.step for p in found]
        panel.fill_between(steps, [p.lo for p in found], [p.hi for p in found], color=colour, alpha=0.13, linewidth=0)
        panel.plot(steps, [p.mean for p in found], color=colour, linestyle=style, label=f"base's text, {group}")
    if len(missing) == 2:
        note(panel, f"too few completions for a curve: {', '.join(missing)}")
        return
    if missing:
        panel.set_xlabel(f"too few to draw: {missing[0]}", fontsize=8, color=FAINT)


def _differences(points: Sequence[CurvePoint], model: str, variant: str, variants: Json) -> list[CurvePoint]:
    scope = headline_scope(variants[variant])
    return select(
        points, model=model, variant=variant, text=BASE, scope=scope, measure=ENTROPY, group="toxic_minus_other"
    )


def _difference(panel: Axes, found: Sequence[CurvePoint], base: Sequence[CurvePoint], variant: str) -> None:
    """The difference with its simultaneous band, that of base as a dotted line."""
    if not found:
        note(panel, "too few for a difference")
        return
    panel.axhline(0, color=FAINT, linewidth=0.8)
    steps = [p.step for p in found]
    band = [p.band_lo for p in found], [p.band_hi for p in found]
    panel.fill_between(steps, *band, color=GREY, alpha=0.15, linewidth=0)
    panel.plot(steps, [p.mean for p in found], color="black", label="difference")
    if variant != BASE and base:
        panel.plot(
            [p.step for p in base],
            [p.mean for p in base],
            color=GREY,
            linestyle=(0, (1, 1.4)),
            label="difference of base",
        )


EFFECTS = (
    ("prompt entropy, bits", ENTROPY, None),
    ("prompt dependence\nbeyond uniform, bits", "prompt_dependence_excess_bits", None),
    ("method-free: KL that the\nuser's text makes, bits", "prompt_kl_bits", "any_method"),
)
"""Rows of the figure of model effects: axis, measure, scope (None: the headline's)."""


def model_effect(
    points: Sequence[CurvePoint], metrics: Json, groups: Mapping[str, str], *, narrow: bool = False
) -> Figure:
    """Each variant minus base at every token of base's text: what the model alone changes. Simultaneous bands."""
    with house_style():
        size = (1.0 + max(3.9 * len(metrics), 5.2), 0.6 + 1.9 * len(EFFECTS))
        figure, panels = grid(len(EFFECTS), len(metrics), size, narrow=narrow, share_x="col", share_y="row")
        labels = []
        for column, (model, variants) in enumerate(metrics.items()):
            names = [v for v in first_seeds(variants, groups) if v != BASE]
            colour = colours([BASE, *names])
            for row, (_, measure, scope) in enumerate(EFFECTS):
                panel, ends = panels[row][column], []
                for variant in names:
                    of = scope or headline_scope(variants[variant])
                    found = select(
                        points, model=model, variant=variant, text=BASE, scope=of, measure=measure, group="model_effect"
                    )
                    if not found:
                        continue
                    steps = [p.step for p in found]
                    band = [p.band_lo for p in found], [p.band_hi for p in found]
                    panel.fill_between(steps, *band, color=colour[variant], alpha=0.12, linewidth=0)
                    panel.plot(steps, [p.mean for p in found], color=colour[variant])
                    ends.append((found[-1].step, found[-1].mean, shown_name(variant), colour[variant]))
                if not ends:
                    note(panel, "no attribution of the same text")
                    continue
                panel.axhline(0, color=FAINT, linewidth=0.8)
                labels.append((panel, ends))
            panels[0][column].set_title(model)
            panels[-1][column].set_xlabel("generated token of base's text")
            panels[-1][column].xaxis.get_major_locator().set_params(integer=True)
        for row, (name, *_) in enumerate(EFFECTS):
            panels[row][0].set_ylabel(name)
        if narrow:
            say_everywhere(panels)
        figure.draw_without_rendering()
        for panel, ends in labels:
            panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
            label_ends(panel, ends)
        return figure


def first_seeds(variants: Json, groups: Mapping[str, str]) -> list[str]:
    """The first variant of each method, in order; without twins of another one."""
    firsts: dict[str, str] = {}
    for variant, found in variants.items():
        if not found.get("identical_to"):
            firsts.setdefault(groups.get(variant, variant), variant)
    return list(firsts.values())
