"""From a study to the files of reports/: the one place that knows which there are.

metrics.json  headline  table1.md  report.md  entropy_curves.csv  training_curves.csv  examples.jsonl  figures
index.html
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from detoxlens.common.artifacts import write_json, write_text
from detoxlens.evaluation.toxicity import Missing
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.about import About
from detoxlens.reporting.attribution_tables import check_tables, prompt_use_tables
from detoxlens.reporting.by_method import by_method
from detoxlens.reporting.claims import claims
from detoxlens.reporting.conclusions import conclusions
from detoxlens.reporting.cost_conclusions import cost_conclusions
from detoxlens.reporting.cost_tables import cost_tables, group_tables
from detoxlens.reporting.curves import CurvePoint, TrainingPoint, entropy_curves, training_curves
from detoxlens.reporting.definitions import definitions
from detoxlens.reporting.document import Document, markdown, page, table1
from detoxlens.reporting.dose_tables import dose_tables
from detoxlens.reporting.endpoints import absent_endpoints
from detoxlens.reporting.examples import Example, examples
from detoxlens.reporting.fluency_tables import fluency_tables
from detoxlens.reporting.headline import headline
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.pictures import draw_pictures
from detoxlens.reporting.rule_conclusions import rule_conclusions
from detoxlens.reporting.study import Study
from detoxlens.reporting.table import Json, Table
from detoxlens.reporting.tables import (
    calibrated_table,
    counts_table,
    endpoints_table,
    other_rates_table,
    pairs_tables,
    published_table,
    scorer_tables,
    seeds_table,
    toxicity_tables,
)
from detoxlens.reporting.toxic_words import toxic_words
from detoxlens.reporting.trust import trust
from detoxlens.reporting.warnings import truncated, warnings
from detoxlens.reporting.word_marks import word_marks
from detoxlens.reporting.word_tables import word_sentences, word_tables
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
    folder: Path, study: Study, config: ReportConfig, *, missing: Missing = "exclude", about: About | None = None
) -> dict[str, Any]:
    """Writes `FILES` into `folder` and returns the metrics. The same study gives the same bytes.

    Args:
        folder: is made when it is not there.
        study: what `load_study` read.
        config: the params section `report`.
        missing: what an unscored completion counts as.
        about: what variants, splits and settings are; without it the report says less.
    """
    about = about or About()
    metrics = build_metrics(study, config, missing=missing)
    points, steps = entropy_curves(study, config), training_curves(study)
    groups = {t.variant: t.group for variants in study.models.values() for t in variants.values()}
    primary = config.primary_split
    methods = by_method(metrics, groups)
    found = conclusions(methods, splits=study.splits, primary=primary, about=about)
    by_rule = rule_conclusions(study, metrics, config, missing=missing)
    costs = cost_conclusions(methods, study.reply_graders, [s for s in config.civil_splits if s in study.splits])
    for model, sentences in by_rule.items():
        details = [*found[model].details, *costs[model], *sentences]
        found[model] = dataclasses.replace(found[model], details=details)
    document = Document(
        study=study,
        about=about,
        conclusions=found,
        warnings=[
            *study.notes,
            *warnings(metrics, primary=primary, missing=missing),
            *absent_endpoints(metrics, config.primary),
            *truncated(study),
        ],
        checks=trust(metrics, primary=primary, about=about, groups=groups),
        claims=claims(methods, primary=primary, about=about),
        pictures=draw_pictures(study, metrics, points, steps, config, groups, folder / "figures"),
        tables=_tables(study, metrics, groups, missing, config),
        examples=(shown := examples(study, config)),
        word_sentences=word_sentences(metrics, num_draws=study.words.num_draws) if study.words else {},
        toxic_words=_toxic_words(study),
        marks=word_marks(study, shown),
        toxic_threshold=config.toxic_group_threshold,
        definitions=definitions(study, config, missing),
    )
    write_json(folder / "metrics.json", metrics)
    for model, variants in metrics.items():
        for variant, numbers in variants.items():
            write_json(folder / "headline" / model / f"{variant}.json", headline(numbers, primary=primary))
    write_text(folder / "entropy_curves.csv", _csv(CurvePoint, points))
    write_text(folder / "training_curves.csv", _csv(TrainingPoint, steps))
    write_text(folder / "examples.jsonl", _json_lines(shown))
    write_text(folder / "table1.md", table1(document))
    write_text(folder / "report.md", markdown(document))
    write_text(folder / "index.html", page(document))
    return metrics


def _tables(
    study: Study, metrics: Json, groups: Json, missing: Missing, config: ReportConfig
) -> dict[str, list[Table]]:
    """The tables by section; those about several seeds, scorers or checks only where there are any."""
    seeds = seeds_table(metrics, study.splits, groups)
    endpoints = endpoints_table(metrics, config.primary)
    return {
        "endpoints": [endpoints] if endpoints else [],
        "toxicity": [
            *toxicity_tables(metrics, study.splits, missing=missing),
            *pairs_tables(metrics, study.splits),
            *([seeds] if seeds else []),
            *([calibrated_table(metrics, study.splits, study.calibration)] if study.calibration else []),
            *worst_of_tables(metrics, study.splits),
        ],
        "dose": dose_tables(metrics),
        "counts": [counts_table(metrics, study.splits, missing=missing)],
        "attribution": [*prompt_use_tables(metrics), *check_tables(metrics)],
        "toxic_words": word_tables(metrics),
        "fluency": fluency_tables(metrics),
        "costs": cost_tables(metrics, study.reply_graders, study.splits, config),
        "groups": group_tables(metrics, config),
        "details": [
            other_rates_table(metrics, study.splits),
            *scorer_tables(metrics, study.splits, missing=missing),
            published_table(),
        ],
    }


def _toxic_words(study: Study) -> dict[str, frozenset[str]]:
    """Per model the words that go with toxic completions of any variant."""
    found = {}
    for model, variants in study.models.items():
        scored = []
        for tables in variants.values():
            toxicity = tables.by_completion(study.grader)
            is_scored = ~np.isnan(toxicity)
            texts = (text for (text,) in tables.completions.where(is_scored).values("completion"))
            scored.append(zip(texts, toxicity[is_scored].tolist(), strict=True))
        found[model] = toxic_words(chain.from_iterable(scored))
    return found


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
