"""Figures of a sweep: the Pareto front, what mattered, each objective along each param, all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from detoxlens.reporting.style import FAINT, GREY, PALETTE, house_style, note, render
from detoxlens.sweep.scale import Scale, scale_of, short

if TYPE_CHECKING:
    from detoxlens.sweep.results import Findings

TITLES = {
    "pareto": "Pareto front",
    "importances": "Importances",
    "slices": "Slices",
    "parallel": "Parallel coordinates",
}
FEASIBLE, INFEASIBLE = PALETTE[0], FAINT


def draw(found: Findings) -> dict[str, Mapping[str, bytes]]:
    """Name -> {"svg": ..., "png": ...}."""
    with house_style():
        figures = {
            "pareto": _pareto(found),
            "importances": _importances(found),
            "slices": _slices(found),
            "parallel": _parallel(found),
        }
    return {name: render(figure) for name, figure in figures.items()}


def _pareto(found: Findings) -> Figure:
    """The first two objectives against each other; with one objective, its value from trial to trial."""
    figure = Figure(figsize=(5.2, 3.8))
    axes = figure.subplots()
    complete = [t for t in found.trials if t.values is not None]
    names = list(found.objectives)
    two = len(names) > 1
    axes.set_title(f"Sweep {found.name}")
    axes.set_xlabel(names[0] if two else "trial")
    axes.set_ylabel(_broken(names[1] if two else names[0]))
    if not complete:
        note(axes, "no complete trial yet")
        return figure

    def place(trial: Any) -> tuple[float, float]:
        return (trial.values[0], trial.values[1]) if two else (trial.number, trial.values[0])

    for label, colour, chosen in (
        ("infeasible", INFEASIBLE, [t for t in complete if not t.feasible]),
        ("feasible", FEASIBLE, [t for t in complete if t.feasible]),
    ):
        if chosen:
            axes.plot(*zip(*map(place, chosen), strict=True), "o", color=colour, alpha=0.55, markersize=4, label=label)
    front = [place(t) for t in found.front]
    if front:
        axes.plot(  # in steps: between two points, nothing better than the worse of both is known
            *zip(*front, strict=True),
            "o",
            color=PALETTE[1],
            markersize=5,
            linewidth=1.2,
            label="front",
            linestyle="-" if two else "none",
            drawstyle="steps-post",
        )
    for trial, at in zip(found.front, front, strict=True):
        axes.annotate(str(trial.number), at, xytext=(4, 4), textcoords="offset points", fontsize=7, color=PALETTE[1])
    baseline = [found.baseline.get(name) for name in names[:2]]
    if two and None not in baseline:
        axes.plot(*baseline, "s", color=GREY, markersize=5, label="it")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _broken(name: str, width: int = 36) -> str:
    """A metric's long name on lines of its own parts: `attribution/val/entropy_shift_bits/` `absolute/value`."""
    lines = [""]
    for part in name.replace("/", "/ ").split():
        lines = [*lines[:-1], lines[-1] + part] if len(lines[-1] + part) <= width else [*lines, part]
    return "\n".join(filter(None, lines))


def _importances(found: Findings) -> Figure:
    shown = {name: shares for name, shares in found.importances.items() if shares}
    height = 1.0 + 0.25 * max((len(s) for s in shown.values()), default=4)
    figure = Figure(figsize=(max(4.0, 3.6 * len(found.objectives)), height))
    panels = figure.subplots(1, len(found.objectives), squeeze=False)[0]
    for axes, name in zip(panels, found.objectives, strict=True):
        axes.set_title(_broken(name), fontsize=8)
        if name not in shown:
            note(axes, "too few different trials to say what matters")
            continue
        shares = list(shown[name].items())[::-1]
        axes.barh([param for param, _ in shares], [share for _, share in shares], color=FEASIBLE, height=0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of variance (fANOVA)")
    return figure


def _slices(found: Findings) -> Figure:
    params = list(dict.fromkeys(name for t in found.trials for name in t.point)) or ["-"]
    figure = Figure(figsize=(1.0 + 1.9 * len(params), 0.8 + 1.7 * len(found.objectives)))
    panels = figure.subplots(len(found.objectives), len(params), squeeze=False, sharex="col", sharey="row")
    complete = [t for t in found.trials if t.values is not None]
    for i, name in enumerate(found.objectives):
        panels[i][0].set_ylabel(_broken(name), fontsize=6)
        for axes, param in zip(panels[i], params, strict=True):
            chosen = [t for t in complete if param in t.point]
            if not chosen:
                note(axes, "no complete trial yet")
                continue
            _slice(axes, [t.point[param] for t in chosen], [t.values[i] for t in chosen], [t.feasible for t in chosen])
            if i == len(found.objectives) - 1:
                axes.set_xlabel(param, fontsize=7)
    return figure


def _slice(axes: Axes, xs: list[Any], ys: list[float], feasible: list[bool]) -> None:
    scale = scale_of(xs)
    if scale.kinds:
        axes.set_xticks(range(len(scale.kinds)), [short(kind, 15) for kind in scale.kinds], fontsize=6)
        axes.set_xlim(-0.5, len(scale.kinds) - 0.5)
        axes.tick_params("x", labelrotation=30 if len(scale.kinds) > 1 else 0)
    elif scale.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if scale.few and not scale.kinds:
        axes.set_xticks(scale.numbers, [text for _, text in scale.ticks])
        axes.set_xticks([], minor=True)
    places = [scale.at(x) for x in xs] if scale.kinds else xs
    axes.scatter(places, ys, s=12, alpha=0.7, c=[FEASIBLE if ok else INFEASIBLE for ok in feasible])


def _parallel(found: Findings) -> Figure:
    """A line per complete trial through its params to its objectives; the front's stand out."""
    complete = [t for t in found.trials if t.values is not None]
    params = list(dict.fromkeys(name for t in complete for name in t.point))
    columns = [*params, *found.objectives]
    figure = Figure(figsize=(1.5 + 1.15 * len(columns), 4.2))
    axes = figure.subplots()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks([])
    if not complete:
        axes.set_xticks([])
        note(axes, "no complete trial yet")
        return figure
    rows = [[*(t.point[p] for p in params), *t.values] for t in complete]
    scales = [scale_of(column) for column in zip(*rows, strict=True)]
    front = {t.number for t in found.front}
    for trial, row in sorted(zip(complete, rows, strict=True), key=lambda pair: pair[0].number in front):
        places = [_share(scale, value) for scale, value in zip(scales, row, strict=True)]
        colour, width = (PALETTE[1], 1.8) if trial.number in front else (FEASIBLE, 0.9)
        axes.plot(
            range(len(columns)),
            places,
            color=colour if trial.feasible else INFEASIBLE,
            linewidth=width,
            alpha=0.95 if trial.number in front else 0.4,
        )
    for i, scale in enumerate(scales):
        axes.axvline(i, color="#404040", linewidth=0.8, zorder=3)
        for place, text in scale.ticks:
            low, high = scale.ends
            axes.annotate(
                short(text, 13),
                (i, (place - low) / (high - low)),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=6.5,
                va="center",
                zorder=4,
                bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.6, "lw": 0},
            )
    axes.set_xticks(range(len(columns)), [_broken(name, 18) for name in columns], fontsize=7)
    axes.set_xlim(-0.2, len(columns) - 0.5)
    for colour, label in ((PALETTE[1], "front"), (FEASIBLE, "feasible"), (INFEASIBLE, "infeasible")):
        if label != "infeasible" or any(not t.feasible for t in complete):
            axes.plot([], [], color=colour, label=label)
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=3)
    return figure


def _share(scale: Scale, value: Any) -> float:
    low, high = scale.ends
    return (scale.at(value) - low) / (high - low)
