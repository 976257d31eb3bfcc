"""What the rule for completions without a score (params `toxicity.missing`) does to the conclusion, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.evaluation.as_json import toxicity_json
from detoxlens.evaluation.missing_rule import OTHER, rule_effect
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.study import Study

Json = Mapping[str, Any]


def rule_conclusions(study: Study, metrics: Json, config: ReportConfig, *, missing: Missing) -> dict[str, list[str]]:
    """Per model a sentence for every test split in which a completion has no score; nothing where all have one.

    Args:
        study: what the report is about.
        metrics: what `build_metrics` returned by the rule `missing`.
        config: the params section `report`.
        missing: what an unscored completion counts as in `metrics`.
    """
    found: dict[str, list[str]] = {}
    for model, variants in metrics.items():
        found[model] = []
        for split in study.splits:
            numbers = {variant: values["toxicity"][split] for variant, values in variants.items()}
            if any(n["num_empty"] or n["num_failed"] for n in numbers.values()):
                other = _by_rule(study, model, split, config, OTHER[missing])
                found[model] += filter(None, [rule_effect(split, numbers, other, missing=missing)])
    return found


def _by_rule(study: Study, model: str, split: str, config: ReportConfig, rule: Missing) -> dict[str, Json]:
    """Variant -> toxicity of one test split by `rule`."""
    scores = {}
    for variant, tables in study.models[model].items():
        scores[variant] = tables.about(tables.scores[study.grader], "test", split)
    return {
        variant: toxicity_json(
            summarize(own, None if variant == "it" else scores["it"], config.bootstrap, missing=rule)
        )
        for variant, own in scores.items()
    }
