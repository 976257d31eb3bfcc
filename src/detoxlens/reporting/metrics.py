"""metrics.json: every number of the report: model -> variant -> toxicity | scorers | attribution | fluency | costs.

DVC compares these files between revisions, so a key keeps its name and its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.evaluation.as_json import difference_json, estimate_json, toxicity_json
from detoxlens.evaluation.fluency import distinct_n, num_distinct, perplexity
from detoxlens.evaluation.samples import difference, estimate
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.params.report import ReportConfig
from detoxlens.recorded.calibration import equivalent_rates
from detoxlens.reporting.attribution_metrics import attribution_metrics
from detoxlens.reporting.cost_metrics import cost_metrics
from detoxlens.reporting.dose import dose_metrics
from detoxlens.reporting.identical import mark_twins, twins
from detoxlens.reporting.pairs import pair_metrics
from detoxlens.reporting.samples import fluency_samples, measure_samples, of_primary_split, scores_of
from detoxlens.reporting.study import Study, VariantTables
from detoxlens.reporting.word_metrics import word_metrics

Json = dict[str, Any]


def build_metrics(study: Study, config: ReportConfig, *, missing: Missing) -> Json:
    """The whole of metrics.json."""
    found = {
        model: {
            variant: {
                "toxicity": _toxicity(study, tables, variants["it"], study.grader, config, missing),
                "scorers": {
                    scorer: _toxicity(study, tables, variants["it"], scorer, config, missing)
                    for scorer in tables.scores
                    if scorer != study.grader and not is_calibrated(study, scorer)
                },
                **({"calibrated": calibrated[variant]} if calibrated else {}),
                "attribution": attribution[variant] | ({"toxic_words": words[variant]} if variant in words else {}),
                "fluency": _fluency(variants, variant, config, part="test")
                | {"val": _fluency(variants, variant, config, part="val")},
                "costs": cost_metrics(study, variants, variant, config),
                **pairs.get(variant, {}),
                **({"dose": doses[variant]} if variant in doses else {}),
            }
            for variant, tables in variants.items()
        }
        for model, variants in study.models.items()
        for calibrated in [_calibrated(study, variants, config)]
        for attribution in [attribution_metrics(study, variants, config)]
        for doses in [_doses(variants, config)]
        for words in [word_metrics(study, variants, config, model=model)]
        for pairs in [pair_metrics(study, variants, measure_samples(study, variants, config, missing=missing), config)]
    }
    return {model: mark_twins(values, twins(study.models[model])) for model, values in found.items()}


def _doses(variants: Mapping[str, VariantTables], config: ReportConfig) -> dict[str, Json]:
    having = {variant: tables for variant, tables in variants.items() if tables.strengths}
    groups = {variant: tables.group for variant, tables in having.items()}
    return dose_metrics({variant: tables.strengths for variant, tables in having.items()}, config, groups)


def is_calibrated(study: Study, scorer: str) -> bool:
    """Is it the map's P(reference > .5), whose mean is the rate, rather than a scorer's own toxicity?"""
    return study.calibration is not None and scorer == study.calibration.name


def _calibrated(study: Study, variants: Mapping[str, VariantTables], config: ReportConfig) -> dict[str, Json] | None:
    """{variant: {split: {threshold | isotonic: {value, ci95, delta_vs_it}}}}; None without a calibration."""
    if study.calibration is None:
        return None
    scorer = study.calibration.scorer
    found: dict[str, Json] = {variant: {} for variant in variants}
    for split in study.splits:
        scores = {v: scores_of(tables, scorer, tables.keys_of("test", split)) for v, tables in variants.items()}
        for variant, rates in equivalent_rates(study.calibration, scores, config.bootstrap).items():
            found[variant][split] = rates
    return found


def _toxicity(
    study: Study, tables: VariantTables, it: VariantTables, scorer: str, config: ReportConfig, missing: Missing
) -> Json:
    """Per test split, and `val`: the validation prompts of the primary split."""
    parts = {split: ("test", split) for split in study.splits} | {"val": ("val", config.primary_split)}
    found = {}
    for name, (part, split) in parts.items():
        scores = scores_of(tables, scorer, tables.keys_of(part, split))
        reference = None if tables is it else scores_of(it, scorer, it.keys_of(part, split))
        found[name] = toxicity_json(summarize(scores, reference, config.bootstrap, missing=missing))
    return found


def _fluency(variants: Mapping[str, VariantTables], variant: str, config: ReportConfig, *, part: str) -> Json:
    """Of the primary split's completions, test or `val`; `measures` has intervals and differences to `it`."""
    tables = variants[variant]
    completions = of_primary_split(tables, tables.completions, config, part)
    rows = of_primary_split(tables, tables.fluency, config, part)
    measured = [row for row in rows if row.nll_nats is not None]
    first = [c for c in completions if c.sample_index == 0]
    sampled = [c for c in completions if c.finish_reason != "unknown"]  # those made elsewhere come without tokens
    ids = [c.completion_ids for c in sampled]
    measures = _fluency_measures(variants, variant, config, part=part)
    mentions = measures.get("prompt_mention_rate") or dict.fromkeys(("value", "ci95", "delta_vs_it"))
    return {
        "perplexity": perplexity([r.nll_nats for r in measured], [r.num_tokens for r in measured]),
        **{f"distinct_{n}": distinct_n(ids, n) for n in (1, 2, 3)},
        "mean_length": sum(map(len, ids)) / len(ids) if ids else None,
        "num_distinct": num_distinct(c.completion for c in completions),
        "distinct_per_100_prompts": 100 * num_distinct(c.completion for c in first) / len(first) if first else None,
        "prompt_mention_rate": mentions["value"],
        "prompt_mention_ci95": mentions["ci95"],
        "num_mention_judged": sum(row.mentions_prompt is not None for row in rows),
        "prompt_mention_delta_vs_it": mentions["delta_vs_it"],
        "ended_by_eos": _share([c.finish_reason == "eos" for c in sampled]),
        "ended_by_next_turn": _share([c.finish_reason == "stop" for c in sampled]),
        "measures": measures,
        "num_completions": len(completions),
    }


def _fluency_measures(variants: Mapping[str, VariantTables], variant: str, config: ReportConfig, *, part: str) -> Json:
    """{measure: {value, ci95, delta_vs_it}}; a measure that no completion has is left out."""
    ours = fluency_samples(variants, variant, config, part=part)
    base = {} if variant == "it" else fluency_samples(variants, "it", config, part=part)
    return {
        name: estimate_json(estimate(sample, config.bootstrap))
        | {
            "delta_vs_it": difference_json(difference(sample, base[name], config.bootstrap)) if name in base else None,
        }
        for name, sample in ours.items()
    }


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
