"""metrics.json: every number of the report, nested as model -> variant -> toxicity | scorers | attribution | fluency.

DVC compares these files between revisions, so a key keeps its name and its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.records import Fluency, Score
from detoxlens.evaluation.as_json import estimate_json, toxicity_json
from detoxlens.evaluation.fluency import distinct_n, num_distinct, perplexity
from detoxlens.evaluation.rates import rate_ci, rate_difference
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.params.report import ReportConfig
from detoxlens.recorded.calibration import equivalent_rates
from detoxlens.reporting.attribution_metrics import attribution_metrics
from detoxlens.reporting.identical import mark_twins, twins
from detoxlens.reporting.study import Key, Study, VariantTables

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
                "attribution": attribution[variant],
                "fluency": _fluency(tables, variants["it"], config, part="test")
                | {"val": _fluency(tables, variants["it"], config, part="val")},
            }
            for variant, tables in variants.items()
        }
        for model, variants in study.models.items()
        for calibrated in [_calibrated(study, variants, config)]
        for attribution in [attribution_metrics(study, variants, config)]
    }
    return {model: mark_twins(values, twins(study.models[model])) for model, values in found.items()}


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
        scores = {v: _scores(tables, scorer, tables.keys_of("test", split)) for v, tables in variants.items()}
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
        scores = _scores(tables, scorer, tables.keys_of(part, split))
        reference = None if tables is it else _scores(it, scorer, it.keys_of(part, split))
        found[name] = toxicity_json(summarize(scores, reference, config.bootstrap, missing=missing))
    return found


def _scores(tables: VariantTables, scorer: str, keys: set[Key]) -> list[Score]:
    return [s for s in tables.scores.get(scorer, ()) if (s.prompt_id, s.sample_index) in keys]


def _fluency(tables: VariantTables, it: VariantTables, config: ReportConfig, *, part: str) -> Json:
    """Of the primary split's completions, test or `val`; empty ones count in length, distinctness and mentions."""
    keys = tables.keys_of(part, config.primary_split)
    completions = [c for c in tables.completions if (c.prompt_id, c.sample_index) in keys]
    rows = _fluency_rows(tables, config, part)
    measured = [row for row in rows if row.nll_nats is not None]
    first = [c for c in completions if c.sample_index == 0]
    sampled = [c for c in completions if c.finish_reason != "unknown"]  # those made elsewhere come without tokens
    ids = [c.completion_ids for c in sampled]
    judged = [r for r in rows if r.mentions_prompt is not None]
    mentions = rate_ci([r.prompt_id for r in judged], [r.mentions_prompt for r in judged])
    return {
        "perplexity": perplexity([r.nll_nats for r in measured], [r.num_tokens for r in measured]),
        **{f"distinct_{n}": distinct_n(ids, n) for n in (1, 2, 3)},
        "mean_length": sum(map(len, ids)) / len(ids) if ids else None,
        "num_distinct": num_distinct(c.completion for c in completions),
        "distinct_per_100_prompts": 100 * num_distinct(c.completion for c in first) / len(first) if first else None,
        "prompt_mention_rate": mentions.value if mentions else None,
        "prompt_mention_ci95": list(mentions.ci95) if mentions and mentions.ci95 else None,
        "num_mention_judged": len(judged),
        "prompt_mention_delta_vs_it": None if tables is it else _mention_delta(rows, _fluency_rows(it, config, part)),
        "ended_by_eos": _share([c.finish_reason == "eos" for c in sampled]),
        "ended_by_next_turn": _share([c.finish_reason == "stop" for c in sampled]),
        "num_completions": len(completions),
    }


def _fluency_rows(tables: VariantTables, config: ReportConfig, part: str) -> list[Fluency]:
    keys = tables.keys_of(part, config.primary_split)
    return [row for row in tables.fluency if (row.prompt_id, row.sample_index) in keys]


def _mention_delta(rows: Sequence[Fluency], it_rows: Sequence[Fluency]) -> Json | None:
    rows, it_rows = ([r for r in part if r.mentions_prompt is not None] for part in (rows, it_rows))
    return estimate_json(
        rate_difference(
            [r.prompt_id for r in rows],
            [r.mentions_prompt for r in rows],
            [r.prompt_id for r in it_rows],
            [r.mentions_prompt for r in it_rows],
        )
    )


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
