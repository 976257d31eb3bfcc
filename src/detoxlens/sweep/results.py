"""Files of a sweep in reports/sweep/<study>/: trials.csv, pareto.json, best_params.yaml, conclusions.md, figures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import write_json, write_text
from detoxlens.params.sweep import as_stored
from detoxlens.sweep import plots
from detoxlens.sweep.early import EARLY_TOXICITY
from detoxlens.sweep.findings import Findings, TrialRow, conclusions

if TYPE_CHECKING:
    from optuna import Study


def write_results(folder: Path, found: Findings, study: Study) -> None:
    """Writes every file of the sweep's report; the same study gives the same bytes.

    Args:
        folder: where.
        found: what the tables and the paragraph say.
        study: what it was read from, for Optuna's figures.
    """
    best, text = found.best, conclusions(found)
    shown = plots.without_attributes(study, found)
    write_text(folder / "trials.csv", trials_csv(found))
    write_json(folder / "pareto.json", [_json(found, trial) for trial in found.front])
    write_text(folder / "best_params.yaml", best_yaml(found))
    pictures = plots.pictures(shown, found)
    for name, images in pictures.items():
        for kind, data in images.items():
            (folder / f"{name}.{kind}").write_bytes(data)
    write_text(folder / "interactive.html", plots.page(shown, found, text))
    write_text(
        folder / "conclusions.md",
        f"# Sweep {found.name}\n\n{text}\n"
        + "".join(f"\n![{name}]({name}.svg)\n" for name in pictures)
        + "\nTo point at and to zoom: [interactive.html](interactive.html).\n"
        + (
            f"\n`detoxlens sweep apply --study {found.name} --trial {best.number}`, then `dvc repro`.\n" if best else ""
        ),
    )


def trials_csv(found: Findings) -> str:
    """One line per trial, failed ones too."""
    objectives = list(found.objectives)
    params = list(dict.fromkeys(name for t in found.trials for name in t.point))
    metrics = sorted({name for t in found.trials for name in t.metrics} - set(objectives))
    front = {t.number for t in found.front}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["trial", "state", "feasible", "on_front", "retry_of", *objectives, EARLY_TOXICITY]
    writer.writerow([*head, *params, *metrics, "reason"])
    for t in found.trials:
        writer.writerow(
            [
                t.number,
                t.state,
                t.feasible,
                t.number in front,
                t.retry_of,  # None becomes an empty field
                *(t.values or [None] * len(objectives)),
                t.early_toxicity,
                *(as_stored(t.point.get(p)) for p in params),
                *(t.metrics.get(m, "") for m in metrics),
                t.reason,
            ]
        )
    return text.getvalue()


def _json(found: Findings, trial: TrialRow) -> dict[str, Any]:
    values = dict(zip(found.objectives, trial.values, strict=True))
    constrained = {name: trial.metrics[name] for name in found.constraints}
    return {"trial": trial.number, "objectives": values, "constraints": constrained, "params": dict(trial.point)}


def best_yaml(found: Findings) -> str:
    """The best point, as it stands in params.yaml after `sweep apply`."""
    best = found.best
    if best is None:
        return f"# Sweep {found.name}: no feasible trial yet.\n"
    tree: dict[str, Any] = {}
    for name, value in best.point.items():
        *parents, last = ["variants", found.variant, "overrides", *name.split(".")]
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    head = f"# Trial {best.number} of sweep {found.name}: the point of the Pareto front nearest to the ideal.\n"
    return head + _yaml(tree)


def _yaml(tree: Any) -> str:
    from ruamel.yaml import YAML

    out = io.StringIO()
    YAML().dump(json.loads(json.dumps(tree)), out)
    return out.getvalue()
