"""From a study to the files of reports/: the one place that knows which there are.

metrics.json  headline  table1.md  report.md  entropy_curves.csv  training_curves.csv  examples.jsonl  figures
index.html
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import write_json, write_text
from detoxlens.evaluation.toxicity import Missing
from detoxlens.params.report import ReportConfig
from detoxlens.reporting import html, tables
from detoxlens.reporting.curves import CurvePoint, TrainingPoint, entropy_curves, training_curves
from detoxlens.reporting.definitions import definitions
from detoxlens.reporting.examples import Example, examples
from detoxlens.reporting.faithfulness import faithfulness_table, precision_table
from detoxlens.reporting.headline import headline
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.pictures import draw_pictures
from detoxlens.reporting.prompt_use import divergence_table, region_table
from detoxlens.reporting.reading import findings, truncated, warnings
from detoxlens.reporting.study import Study
from detoxlens.reporting.tables import Table
from detoxlens.reporting.unscored import rule_findings
from detoxlens.reporting.worst_of import worst_of_tables

FILES = (
    "metrics.json",
    "headline",
    "table1.md",
    "report.md",
    "entropy_curves.csv",
    "training_curves.csv",
    "examples.jsonl",
    "figures",
    "index.html",
)
"""What `write_report` leaves in its folder."""


def write_report(
    folder: Path,
    study: Study,
    config: ReportConfig,
    *,
    missing: Missing = "exclude",
    heatmaps: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Writes `FILES` into `folder` and returns the metrics. The same study gives the same bytes.

    Args:
        folder: is made when it is not there.
        study: what `load_study` read.
        config: the params section `report`.
        missing: what an unscored completion counts as.
        heatmaps: (heading, ready HTML) of the attributions to show.
    """
    metrics = build_metrics(study, config, missing=missing)
    points, steps = entropy_curves(study, config), training_curves(study)
    shown = examples(study, config)
    said = findings(metrics, splits=study.splits, min_group=config.min_sequences_per_step)
    for model, told in rule_findings(study, metrics, config, missing=missing).items():
        said[model] += told
    beware = [*study.notes, *warnings(metrics, primary=config.primary_split, missing=missing), *truncated(study)]
    found = _tables(study, metrics, missing)

    write_json(folder / "metrics.json", metrics)
    for model, variants in metrics.items():
        for variant, numbers in variants.items():
            path = folder / "headline" / model / f"{variant}.json"
            write_json(path, headline(numbers, primary=config.primary_split))
    write_text(folder / "entropy_curves.csv", _csv(CurvePoint, points))
    write_text(folder / "training_curves.csv", _csv(TrainingPoint, steps))
    write_text(folder / "examples.jsonl", _json_lines(shown))
    write_text(folder / "table1.md", _table1(study, found, beware))
    write_text(folder / "report.md", _markdown(study, found, said, beware))
    pictures = draw_pictures(study, metrics, points, steps, config, folder / "figures")
    page = html.page(
        "What detoxification changed",
        _summary(study),
        {
            "Result": [pictures["toxicity_rates"], *_html(found, "toxicity"), *_said(said), *_html(found, "worst_of")],
            "Use of the prompt": [
                pictures["figure1"],
                pictures["attribution_checks"],
                *_html(found, "attribution"),
                *_heatmaps(heatmaps),
            ],
            "Language": [pictures["fluency"], *_html(found, "fluency")],
            "Before and after": _examples(shown, config.toxic_group_threshold),
            "Training": [pictures["training"]],
            "Details": [pictures["toxicity_distribution"], *_html(found, "details")],
            "Definitions": [html.term_list(definitions(study, config, missing))],
        },
        before=html.warning_box(beware),
        footer=FOOTER,
    )
    write_text(folder / "index.html", page)
    return metrics


FOOTER = (
    "Numbers: <code>metrics.json</code>, <code>entropy_curves.csv</code>, <code>training_curves.csv</code>, beside "
    "this page. Against another revision: <code>dvc metrics diff</code>, <code>dvc plots diff</code>. Runs, "
    "parameters and adapters: <code>detoxlens ui</code> (MLflow)."
)


def _tables(study: Study, metrics: Mapping[str, Any], missing: Missing) -> dict[str, list[Table]]:
    """The tables by section; those about several seeds, scorers or faithfulness only where there are any."""
    groups = {t.variant: t.group for variants in study.models.values() for t in variants.values()}
    scorers = dict.fromkeys(s for variants in metrics.values() for v in variants.values() for s in v["scorers"])
    faithfulness, seeds = faithfulness_table(study), tables.seeds_table(metrics, study.splits, groups)
    by_scorers = [
        table
        for scorer in scorers
        for table in (
            tables.toxicity_table(metrics, study.splits, scorer, missing=missing),
            tables.difference_table(metrics, study.splits, scorer),
            tables.counts_table(metrics, study.splits, scorer, missing=missing),
        )
    ]
    return {
        "toxicity": [
            tables.toxicity_table(metrics, study.splits, missing=missing),
            tables.difference_table(metrics, study.splits),
            *([seeds] if seeds else []),
            *([tables.calibrated_table(metrics, study.splits, study.calibration)] if study.calibration else []),
        ],
        "worst_of": worst_of_tables(metrics, study.splits),
        "attribution": [
            tables.attribution_table(metrics),
            region_table(metrics),
            tables.shift_table(metrics),
            divergence_table(metrics),
            *(t for t in (faithfulness, precision_table(study)) if t),
        ],
        "fluency": [tables.fluency_table(metrics)],
        "details": [
            tables.counts_table(metrics, study.splits, missing=missing),
            tables.other_rates_table(metrics, study.splits),
            *by_scorers,
            tables.published_table(),
        ],
    }


def _summary(study: Study) -> str:
    variants = next(iter(study.models.values()))
    num = sum(len(t.completions) for models in study.models.values() for t in models.values())
    return (
        f"{', '.join(study.models)}: {', '.join(variants)}; {num:,} completions, graded by {study.grader}. Every "
        "sentence, table and figure is computed from this run's tables."
    )


def _table1(study: Study, found: Mapping[str, Sequence[Table]], beware: Sequence[str]) -> str:
    """Table 1 with its differences and counts: what a terminal or a README can show."""
    counts, *_ = found["details"]
    parts = ["# What detoxification changed", _summary(study)]
    parts += [*(t.markdown() for section in ("toxicity", "worst_of") for t in found[section])]
    parts += [counts.markdown(), *_beware(beware)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _beware(beware: Sequence[str]) -> list[str]:
    return ["## Beware\n\n" + "\n".join(f"- {sentence}" for sentence in beware)] if beware else []


def _markdown(
    study: Study, found: Mapping[str, Sequence[Table]], said: Mapping[str, Sequence[str]], beware: Sequence[str]
) -> str:
    parts = ["# What detoxification changed", _summary(study), *(t.markdown() for t in found["toxicity"])]
    parts.append("## What the numbers say")
    for model, sentences in said.items():
        parts.append(f"### {model}\n\n" + "\n".join(f"- {sentence}" for sentence in sentences))
    parts += _beware(beware)
    parts += [t.markdown() for section in ("worst_of", "attribution", "fluency", "details") for t in found[section]]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _html(found: Mapping[str, Sequence[Table]], section: str) -> list[str]:
    return [html.table(t) for t in found[section]]


def _said(said: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"<h3>{html.text(model)}</h3>{html.bullets(sentences)}" for model, sentences in said.items()]


def _heatmaps(heatmaps: Sequence[tuple[str, str]]) -> list[str]:
    if not heatmaps:
        return ["<p>No attributed completion to show token by token.</p>"]
    maps = [f"<h3>{html.text(heading)}</h3>{body}" for heading, body in heatmaps]
    return [html.folded(f"Token by token: {len(maps)} completions (may contain rude text)", *maps)]


def _examples(shown: Sequence[Example], threshold: float) -> list[str]:
    if not shown:
        return ["<p>No prompt that every variant completed.</p>"]
    how = (
        "Chosen by the hash of the prompt, not by hand: half where `it` answered toxically, half where it did not, as "
        f"far as there are any. The number is the toxicity, in red above {threshold:g}."
    )
    blocks = [f"<p>{html.text(how)}</p>"]
    for model in dict.fromkeys(example.model for example in shown):
        mine = [example for example in shown if example.model == model]
        summary = f"{model}: {len(mine)} prompts with every variant's completion (contains rude text)"
        blocks.append(html.folded(summary, html.example_list(mine, threshold)))
    return blocks


def _csv(cls: type, rows: Sequence[Any]) -> str:
    """Rows of the dataclass `cls`; numbers as Python writes them, which is exact. An undefined number is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(cls)]
    writer.writerow(names)
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow(["" if value != value else value for value in values])  # NaN differs from itself
    return text.getvalue()


def _json_lines(rows: Sequence[Example]) -> str:
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)
