"""metrics.json: every number of the report: model -> variant -> toxicity | scorers | attribution | fluency | costs.

DVC compares these files between revisions, so a key keeps its name and its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detoxlens.evaluation.as_json import difference_json, estimate_json, toxicity_json
from detoxlens.evaluation.fluency import num_distinct, perplexity
from detoxlens.evaluation.samples import Sample, difference, estimate
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.params.report import ReportConfig
from detoxlens.recorded.calibration import equivalent_rates
from detoxlens.reporting.attribution_metrics import attribution_metrics
from detoxlens.reporting.cost_metrics import cost_metrics
from detoxlens.reporting.dose import dose_metrics
from detoxlens.reporting.identical import mark_twins, twins
from detoxlens.reporting.pairs import pair_metrics
from detoxlens.reporting.samples import Language, language_samples, measure_samples, of_primary_split, scores_of
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
                "fluency": _fluency(variants, variant, language["test"], config, part="test")
                | {"val": _fluency(variants, variant, language["val"], config, part="val")},
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
        for language in [{part: language_samples(variants, config, part=part) for part in ("test", "val")}]
        for samples in [measure_samples(study, variants, config, missing=missing, language=language["test"])]
        for pairs in [pair_metrics(study, variants, samples, config)]
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
        scores = {v: scores_of(tables, scorer, "test", split) for v, tables in variants.items()}
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
        scores = scores_of(tables, scorer, part, split)
        reference = None if tables is it else scores_of(it, scorer, part, split)
        found[name] = toxicity_json(summarize(scores, reference, config.bootstrap, missing=missing))
    return found


def _fluency(
    variants: Mapping[str, VariantTables],
    variant: str,
    language: Language,
    config: ReportConfig,
    *,
    part: str,
) -> Json:
    """Of the primary split's completions, test or `val`; `measures` has intervals and differences to `it`."""
    tables = variants[variant]
    completions = of_primary_split(tables, tables.completions, config, part)
    rows = of_primary_split(tables, tables.fluency, config, part)
    nats = rows.column("nll_nats").astype(np.float64)
    is_measured = ~np.isnan(nats)
    first = completions.where(completions.column("sample_index") == 0)
    reasons = completions.column("finish_reason")
    sampled = completions.where(~reasons.equals("unknown"))  # those made elsewhere come without tokens
    lengths = tables.num_tokens[tables.mask(part, config.primary_split)][~reasons.equals("unknown")]
    measures = _fluency_measures(language.samples, variant, config)
    mentions = measures.get("prompt_mention_rate") or dict.fromkeys(("value", "ci95", "delta_vs_it"))
    return {
        "perplexity": perplexity(nats[is_measured].tolist(), rows.column("num_tokens")[is_measured].tolist()),
        **{f"distinct_{n}": language.ngrams[n][variant].share_distinct for n in (1, 2, 3)},
        "mean_length": int(lengths.sum()) / len(lengths) if len(lengths) else None,
        "num_distinct": num_distinct(text for (text,) in completions.values("completion")),
        "distinct_per_100_prompts": 100 * num_distinct(text for (text,) in first.values("completion")) / len(first)
        if len(first)
        else None,
        "prompt_mention_rate": mentions["value"],
        "prompt_mention_ci95": mentions["ci95"],
        "num_mention_judged": int((~np.isnan(rows.column("mentions_prompt").astype(np.float64))).sum()),
        "prompt_mention_delta_vs_it": mentions["delta_vs_it"],
        "ended_by_eos": _share(sampled.column("finish_reason").equals("eos")),
        "ended_by_next_turn": _share(sampled.column("finish_reason").equals("stop")),
        "measures": measures,
        "num_completions": len(completions),
    }


def _fluency_measures(samples: Mapping[str, Mapping[str, Sample]], variant: str, config: ReportConfig) -> Json:
    """{measure: {value, ci95, delta_vs_it}}; a measure that no completion has is left out."""
    base = {} if variant == "it" else samples["it"]
    return {
        name: estimate_json(estimate(sample, config.bootstrap))
        | {
            "delta_vs_it": difference_json(difference(sample, base[name], config.bootstrap)) if name in base else None,
        }
        for name, sample in samples[variant].items()
    }


def _share(flags: np.ndarray) -> float | None:
    return int(flags.sum()) / len(flags) if len(flags) else None
