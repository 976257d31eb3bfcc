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
from detoxlens.common.names import shown_name
from detoxlens.evaluation.toxicity import Missing
from detoxlens.params.report import ReportConfig
from detoxlens.reporting import html, tables
from detoxlens.reporting.attribution_tables import check_tables, prompt_use_tables
from detoxlens.reporting.conclusions import conclusions, truncated, warnings
from detoxlens.reporting.curves import CurvePoint, TrainingPoint, entropy_curves, training_curves
from detoxlens.reporting.definitions import definitions
from detoxlens.reporting.examples import Example, examples
from detoxlens.reporting.headline import headline
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.pictures import draw_pictures
from detoxlens.reporting.rule_conclusions import rule_conclusions
from detoxlens.reporting.study import Study
from detoxlens.reporting.table import Table

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
    found = conclusions(metrics, splits=study.splits, min_group=config.min_sequences_per_step)
    for model, sentences in rule_conclusions(study, metrics, config, missing=missing).items():
        found[model] += sentences
    warned = [*study.notes, *warnings(metrics, primary=config.primary_split, missing=missing), *truncated(study)]
    sections = _tables(study, metrics, missing)

    write_json(folder / "metrics.json", metrics)
    for model, variants in metrics.items():
        for variant, numbers in variants.items():
            path = folder / "headline" / model / f"{variant}.json"
            write_json(path, headline(numbers, primary=config.primary_split))
    write_text(folder / "entropy_curves.csv", _csv(CurvePoint, points))
    write_text(folder / "training_curves.csv", _csv(TrainingPoint, steps))
    write_text(folder / "examples.jsonl", _json_lines(shown))
    write_text(folder / "table1.md", _table1(study, sections, warned))
    write_text(folder / "report.md", _markdown(study, sections, found, warned))
    pictures = draw_pictures(study, metrics, points, steps, config, folder / "figures")
    page = html.page(
        "What detoxification changed",
        _summary(study),
        {
            "Result": [
                pictures["toxicity_rates"],
                *_html(sections["toxicity"]),
                *_sentences(found),
                *_html(sections["worst_of"]),
            ],
            "Use of the prompt": [
                pictures["figure1"],
                pictures["attribution_checks"],
                *_html(sections["attribution"]),
                *_heatmaps(heatmaps),
            ],
            "Language": [pictures["fluency"], *_html(sections["fluency"])],
            "Before and after": _examples(shown, config.toxic_group_threshold),
            "Training": [pictures["training"]],
            "Details": [pictures["toxicity_distribution"], *_html(sections["details"])],
            "Definitions": [html.term_list(definitions(study, config, missing))],
        },
        before=html.warning_box(warned),
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
    seeds = tables.seeds_table(metrics, study.splits, groups)
    return {
        "toxicity": [
            *tables.toxicity_tables(metrics, study.splits, missing=missing),
            *([seeds] if seeds else []),
            *([tables.calibrated_table(metrics, study.splits, study.calibration)] if study.calibration else []),
        ],
        "worst_of": tables.worst_of_tables(metrics, study.splits),
        "attribution": [*prompt_use_tables(metrics), *check_tables(metrics)],
        "fluency": [tables.fluency_table(metrics)],
        "details": [
            tables.counts_table(metrics, study.splits, missing=missing),
            tables.other_rates_table(metrics, study.splits),
            *tables.scorer_tables(metrics, study.splits, missing=missing),
            tables.published_table(),
        ],
    }


def _summary(study: Study) -> str:
    variants = next(iter(study.models.values()))
    num = sum(len(t.completions) for models in study.models.values() for t in models.values())
    return (
        f"{', '.join(study.models)}: {', '.join(map(shown_name, variants))}; {num:,} completions, graded by "
        f"{study.grader}. Base is the model as released, the paper's IT. Every sentence, table and figure is computed "
        "from this run's tables."
    )


def _table1(study: Study, sections: Mapping[str, Sequence[Table]], warned: Sequence[str]) -> str:
    """Table 1 with its differences and counts: what a terminal or a README can show."""
    counts, *_ = sections["details"]
    parts = ["# What detoxification changed", _summary(study)]
    parts += [*(t.markdown() for section in ("toxicity", "worst_of") for t in sections[section])]
    parts += [counts.markdown(), *_warnings(warned)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _warnings(warned: Sequence[str]) -> list[str]:
    return ["## Warnings\n\n" + "\n".join(f"- {sentence}" for sentence in warned)] if warned else []


def _markdown(
    study: Study,
    sections: Mapping[str, Sequence[Table]],
    found: Mapping[str, Sequence[str]],
    warned: Sequence[str],
) -> str:
    parts = ["# What detoxification changed", _summary(study), *(t.markdown() for t in sections["toxicity"])]
    parts.append("## What the numbers say")
    for model, sentences in found.items():
        parts.append(f"### {model}\n\n" + "\n".join(f"- {sentence}" for sentence in sentences))
    parts += _warnings(warned)
    parts += [t.markdown() for section in ("worst_of", "attribution", "fluency", "details") for t in sections[section]]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _html(found: Sequence[Table]) -> list[str]:
    return [html.table(t) for t in found]


def _sentences(found: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"<h3>{html.text(model)}</h3>{html.bullets(sentences)}" for model, sentences in found.items()]


def _heatmaps(heatmaps: Sequence[tuple[str, str]]) -> list[str]:
    if not heatmaps:
        return ["<p>No attributed completion to show token by token.</p>"]
    maps = [f"<h3>{html.text(heading)}</h3>{body}" for heading, body in heatmaps]
    return [html.folded(f"Token by token: {len(maps)} completions (may contain rude text)", *maps)]


def _examples(shown: Sequence[Example], threshold: float) -> list[str]:
    if not shown:
        return ["<p>No prompt that every variant completed.</p>"]
    how = (
        "Chosen by the hash of the prompt, not by hand: half where base answered toxically, half where it did not, as "
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
