"""Figures of a sweep by `optuna.visualization`: as pictures (matplotlib) and as one page to point at (Plotly).

Optuna draws what is infeasible in grey, and a param that is searched by its logarithm on a logarithmic axis.
"""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from detoxlens.reporting.style import GREY, house_style, render
from detoxlens.sweep.findings import Findings, label

if TYPE_CHECKING:
    from optuna import Study

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 0; } p { max-width: 52rem; }
"""
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud"],  # nothing leaves the page
    "plotlyServerURL": "",
}


def without_attributes(study: Study, found: Findings) -> Study:
    """The study in memory, trial by trial with its number: what is drawn, without paths, hosts and times."""
    import optuna

    with _silent():
        shown = optuna.create_study(study_name=found.name, directions=study.directions)
        shown.set_metric_names([label(name) for name in found.objectives])
    for trial in study.get_trials(deepcopy=False):
        complete = trial.state.name == "COMPLETE"
        shown.add_trial(
            optuna.create_trial(
                state=trial.state if complete else optuna.trial.TrialState.FAIL,
                params=trial.params,
                distributions=trial.distributions,
                values=trial.values if complete else None,
                constraints=dict(trial.constraints) if complete else None,
            )
        )
    return shown


def pictures(shown: Study, found: Findings) -> dict[str, Mapping[str, bytes]]:
    """Name -> {"svg": ..., "png": ...}; figures for which there are too few trials are left out."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as backend

    drawn = {}
    with house_style(), _silent():
        for name, axes in _figures(backend, shown, found):
            first = next(iter(axes.flat)) if hasattr(axes, "flat") else axes
            if name == "pareto" and (base := _base(found)):
                first.plot(*base, "s", color=GREY, label="base")
                first.legend()
            for panel in first.figure.axes:
                panel.tick_params("x", labelrotation=20)
            drawn[name] = render(first.figure)
            pyplot.close(first.figure)
    return drawn


def page(shown: Study, found: Findings, text: str) -> str:
    """One HTML page with Plotly inside, without network; the same study gives the same text."""
    from optuna import visualization as backend
    from plotly.offline import get_plotlyjs

    parts = []
    with _silent():
        for name, figure in _figures(backend, shown, found):
            if name == "pareto" and (base := _base(found)):
                figure.add_scatter(x=[base[0]], y=[base[1]], mode="markers", name="base", marker={"color": GREY})
            figure.update_layout(template="plotly_white")
            parts.append(figure.to_html(include_plotlyjs=False, full_html=False, div_id=name, config=CONFIG))
    title = f"Sweep {html.escape(found.name)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f"<script>{get_plotlyjs()}</script>\n<h1>{title}</h1>\n<p>{_with_code(text)}</p>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _with_code(text: str) -> str:
    """Markdown's `code` as HTML, everything else as plain text."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _figures(backend: ModuleType, shown: Study, found: Findings) -> Iterator[tuple[str, Any]]:
    """Name and figure of each, by Optuna's functions for Plotly or for matplotlib, which have the same names."""
    from optuna.importance import FanovaImportanceEvaluator

    complete = [t for t in found.trials if t.values is not None]
    if not complete:
        return
    if len(found.objectives) == 1:
        yield "history", backend.plot_optimization_history(shown, target_name=label(next(iter(found.objectives))))
    else:
        yield "pareto", backend.plot_pareto_front(shown, targets=lambda t: t.values[:2], target_names=_first_two(found))
    if all(found.importances.values()):
        yield "importances", backend.plot_param_importances(shown, evaluator=FanovaImportanceEvaluator(seed=0))
    for number, name in enumerate(found.objectives):
        target = {"target": lambda t, number=number: t.values[number], "target_name": label(name)}
        suffix = "" if len(found.objectives) == 1 else f"-{number + 1}"
        yield f"slices{suffix}", backend.plot_slice(shown, **target)
        yield f"parallel{suffix}", backend.plot_parallel_coordinate(shown, **target)


def _first_two(found: Findings) -> list[str]:
    return [label(name) for name in list(found.objectives)[:2]]


def _base(found: Findings) -> tuple[float, float] | None:
    """The first two objectives' values for the base model."""
    values = [found.baseline.get(name) for name in list(found.objectives)[:2]]
    return None if None in values else (values[0], values[1])


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing is said of experimental parts (Optuna's version is pinned), of studies made, of axes with one value."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Attempting to set identical low and high [xy]lims")
        yield
