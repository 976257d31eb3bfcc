"""The figures of a sweep to point at and to filter: one HTML page with Plotly inside, without network."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from detoxlens.reporting.style import FAINT, GREY, PALETTE
from detoxlens.sweep.plots import TITLES
from detoxlens.sweep.scale import Scale, scale_of, short, text_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from detoxlens.sweep.results import Findings, TrialRow

LAYOUT = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 70, "r": 30, "t": 30, "b": 60},
}
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud"],  # nothing leaves the page
    "plotlyServerURL": "",
}
HINTS = {
    "pareto": "Point at a trial to see its params; a click on the legend hides a group.",
    "importances": "Share of each objective's variance (fANOVA).",
    "slices": "Drag to zoom, double-click to go back.",
    "parallel": "Drag along an axis to keep only the trials that pass there; drag its name to move it.",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 0; } p { max-width: 52rem; }
.hint { color: #5f5f5f; font-size: .9rem; margin: .2rem 0 .4rem; }
"""


def page(found: Findings, conclusions: str) -> str:
    """The whole page; the same findings give the same text."""
    from plotly.offline import get_plotlyjs

    figures = {"pareto": _pareto, "importances": _importances, "slices": _slices, "parallel": _parallel}
    parts = [
        f'<h2>{TITLES[name]}</h2>\n<p class="hint">{HINTS[name]}</p>\n{_div(draw(found), name)}'
        for name, draw in figures.items()
    ]
    title = f"Sweep {html.escape(found.name)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f"<script>{get_plotlyjs()}</script>\n<h1>{title}</h1>\n<p>{html.escape(conclusions)}</p>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _figure() -> Figure:
    from plotly.graph_objects import Figure

    return Figure(layout=LAYOUT)


def _div(figure: Figure, name: str) -> str:
    if not figure.data:
        return "<p>Too few different trials to say.</p>"
    return figure.to_html(include_plotlyjs=False, full_html=False, div_id=name, config=CONFIG)


def _about(trial: TrialRow, found: Findings) -> str:
    """What is shown when a trial is pointed at."""
    values = [f"{name}: {value:.4g}" for name, value in zip(found.objectives, trial.values, strict=True)]
    point = [f"{name} = {_text(value)}" for name, value in trial.point.items()]
    return "<br>".join([f"<b>trial {trial.number}</b>", *values, *point])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else html.escape(short(text_of(value), 60))


def _groups(found: Findings) -> list[tuple[str, str, list[TrialRow]]]:
    """Name, colour and trials of what the legend lists."""
    front = {t.number for t in found.front}
    complete = [t for t in found.trials if t.values is not None]
    groups = [
        ("infeasible", FAINT, [t for t in complete if not t.feasible]),
        ("feasible", PALETTE[0], [t for t in complete if t.feasible and t.number not in front]),
        ("front", PALETTE[1], found.front),
    ]
    return [group for group in groups if group[2]]


def _pareto(found: Findings) -> Figure:
    names = list(found.objectives)
    two = len(names) > 1
    figure = _figure()
    for name, colour, trials in _groups(found):
        figure.add_scatter(
            x=[t.values[0] if two else t.number for t in trials],
            y=[t.values[1] if two else t.values[0] for t in trials],
            mode="lines+markers" if name == "front" and two else "markers",
            line={"shape": "hv", "width": 1.5, "color": colour},
            marker={"size": 9, "color": colour},
            name=name,
            hovertext=[_about(t, found) for t in trials],
            hoverinfo="text",
        )
    if two and all(name in found.baseline for name in names[:2]):
        figure.add_scatter(
            x=[found.baseline[names[0]]],
            y=[found.baseline[names[1]]],
            mode="markers",
            name="it",
            marker={"symbol": "square", "size": 10, "color": GREY},
            hovertext=["it: the model as released"],
            hoverinfo="text",
        )
    figure.update_layout(
        height=480, xaxis_title=names[0] if two else "trial", yaxis_title=names[1] if two else names[0]
    )
    return figure


def _importances(found: Findings) -> Figure:
    figure = _figure()
    shown = [(name, shares) for name, shares in found.importances.items() if shares]
    for number, (name, shares) in enumerate(shown):
        colour = PALETTE[number % len(PALETTE)]
        params = list(shares)[::-1]
        figure.add_bar(
            y=params,
            x=[shares[p] for p in params],
            name=name,
            orientation="h",
            marker={"color": colour},
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(height=420, xaxis={"range": [0, 1], "tickformat": ".0%"}, legend=legend)
    figure.update_yaxes(automargin=True)
    return figure


def _slices(found: Findings) -> Figure:
    from plotly.subplots import make_subplots

    names = list(found.objectives)
    params = list(dict.fromkeys(name for t in found.trials if t.values is not None for name in t.point)) or ["-"]
    figure = make_subplots(
        len(names), len(params), shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.01, vertical_spacing=0.04
    )
    for i, name in enumerate(names):
        for j, param in enumerate(params):
            for group, colour, trials in _groups(found):
                trials = [t for t in trials if param in t.point]
                figure.add_scatter(
                    x=[_drawn(t.point[param]) for t in trials],
                    y=[t.values[i] for t in trials],
                    mode="markers",
                    marker={"color": colour, "size": 7},
                    name=group,
                    legendgroup=group,
                    showlegend=i == j == 0,
                    hovertext=[_about(t, found) for t in trials],
                    hoverinfo="text",
                    row=i + 1,
                    col=j + 1,
                )
            values = [t.point[param] for t in found.trials if param in t.point]
            if values:
                _set_axis(figure, scale_of(values), row=i + 1, col=j + 1)
        figure.update_yaxes(title_text="<br>".join(_lines(name)), title_font_size=11, row=i + 1, col=1)
    for j, param in enumerate(params):
        figure.update_xaxes(title_text=param, title_font_size=11, row=len(names), col=j + 1)
    figure.update_layout(LAYOUT | {"height": 120 + 230 * len(names)})
    return figure


def _set_axis(figure: Figure, scale: Scale, *, row: int, col: int) -> None:
    if scale.log:
        figure.update_xaxes(type="log", row=row, col=col)
    if scale.kinds:
        figure.update_xaxes(tickangle=20, row=row, col=col)
    elif scale.few:
        figure.update_xaxes(tickvals=list(scale.numbers), row=row, col=col)


def _drawn(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else short(text_of(value), 20)


def _parallel(found: Findings) -> Figure:
    complete = [t for t in found.trials if t.values is not None]
    figure = _figure()
    if complete:
        params = [p for p in dict.fromkeys(n for t in complete for n in t.point) if all(p in t.point for t in complete)]
        columns = [(p, [t.point[p] for t in complete]) for p in params]
        columns += [(name, [t.values[i] for t in complete]) for i, name in enumerate(found.objectives)]
        costs = [t.values[0] for t in complete]
        figure.add_parcoords(
            line={"color": costs, "colorscale": "Viridis", "showscale": True, "colorbar": {"thickness": 12}},
            dimensions=[_dimension(name, values, scale_of(values)) for name, values in columns],
            labelfont={"size": 11},
        )
    figure.update_layout(height=520, margin={"t": 90})
    return figure


def _dimension(name: str, values: list[Any], scale: Scale) -> dict[str, Any]:
    low, high = scale.ends
    ticks = scale.ticks
    return {
        "label": "<br>".join(_lines(name)),
        "values": [scale.at(v) for v in values],
        "range": [low, high],
        "tickvals": [place for place, _ in ticks],
        "ticktext": [short(text, 16) for _, text in ticks],
    }


def _lines(name: str) -> list[str]:
    """A long metric's name in two lines."""
    parts = name.split("/")
    half = (len(parts) + 1) // 2
    return ["/".join(parts[:half]) + "/", "/".join(parts[half:])] if len(parts) > 2 else [name]
