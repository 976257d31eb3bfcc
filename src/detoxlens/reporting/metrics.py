"""metrics.json: every number of the report, nested as model -> variant -> toxicity | scorers | attribution | fluency.

DVC compares these files between revisions, so a key keeps its name and its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detoxlens.common.records import Fluency, Score
from detoxlens.evaluation.as_json import estimate_json, toxicity_json
from detoxlens.evaluation.fluency import distinct_n, num_distinct, perplexity
from detoxlens.evaluation.rates import rate_ci, rate_difference
from detoxlens.evaluation.stats import group_difference, mean_ci, paired_difference
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.params.report import ReportConfig
from detoxlens.recorded.calibration import equivalent_rates
from detoxlens.reporting.curves import primary_traces, toxic_keys
from detoxlens.reporting.prompt_use import divergence_metrics, region_metrics
from detoxlens.reporting.study import MEASURES, Key, Study, Trace, VariantTables

Json = dict[str, Any]


def build_metrics(study: Study, config: ReportConfig, *, missing: Missing) -> Json:
    """The whole of metrics.json."""
    return {
        model: {
            variant: {
                "toxicity": _toxicity(study, tables, variants["it"], study.grader, config, missing),
                "scorers": {
                    scorer: _toxicity(study, tables, variants["it"], scorer, config, missing)
                    for scorer in tables.scores
                    if scorer != study.grader and not is_calibrated(study, scorer)
                },
                **({"calibrated": calibrated[variant]} if calibrated else {}),
                "attribution": _attribution(study, tables, variants["it"], config),
                "fluency": _fluency(tables, variants["it"], config, part="test")
                | {"val": _fluency(tables, variants["it"], config, part="val")},
            }
            for variant, tables in variants.items()
        }
        for model, variants in study.models.items()
        for calibrated in [_calibrated(study, variants, config)]
    }


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


def _attribution(study: Study, tables: VariantTables, it: VariantTables, config: ReportConfig) -> Json:
    """Use of the prompt on test prompts, also by groups of own and of `it`'s score; on validation prompts (`val`)."""
    own = primary_traces(tables, it, "own", config)
    found = _prompt_use(tables, it, config, part="test")
    found["num_by_status"] = dict(tables.num_attributions)
    found["groups"] = _group_means(study, tables, own, config, by=tables)
    if tables is not it:
        found["groups_by_it"] = _group_means(study, tables, own, config, by=it)
    found["val"] = _prompt_use(tables, it, config, part="val")
    found["region_share"] = region_metrics(own, config.bootstrap)
    if tables is not it:
        forced = primary_traces(tables, it, "it", config)
        found["divergence_from_it_bits"] = divergence_metrics(forced, config.bootstrap)
    return found


def _prompt_use(tables: VariantTables, it: VariantTables, config: ReportConfig, *, part: str) -> Json:
    """Means over generated tokens, then over completions, and the shift on the text of `it`."""
    own = primary_traces(tables, it, "own", config, part=part)
    own_it = primary_traces(it, it, "own", config, part=part)
    found: Json = {}
    for measure in MEASURES:
        delta = None
        if tables is not it:
            delta = paired_difference(
                _prompts(own),
                _per_sequence(own, measure),
                _prompts(own_it),
                _per_sequence(own_it, measure),
                config.bootstrap,
            )
        found[measure] = (_mean(own, measure, config) or {"value": None, "ci95": None}) | {
            "delta_vs_it": estimate_json(delta)
        }
    found["num_sequences"] = len(own)
    if tables is not it:
        forced = primary_traces(tables, it, "it", config, part=part)
        found["entropy_shift_bits"] = _shift(forced, own_it, config)
    return found


def _group_means(
    study: Study, tables: VariantTables, traces: Sequence[Trace], config: ReportConfig, *, by: VariantTables
) -> Json:
    """Toxic and other completions, by the toxicity of `by`'s completion, and the difference toxic - other."""
    toxic, other = toxic_keys(by.toxicity(study.grader), config)
    scored = [t for t in traces if t.key in toxic or t.key in other]
    parts = {"toxic": [t for t in scored if t.key in toxic], "other": [t for t in scored if t.key in other]}
    found: Json = {
        name: {measure: _mean(part, measure, config) for measure in MEASURES} | {"num_sequences": len(part)}
        for name, part in parts.items()
    }
    found["toxic_minus_other"] = {
        measure: estimate_json(
            group_difference(
                _prompts(scored), _per_sequence(scored, measure), [t.key in toxic for t in scored], config.bootstrap
            )
        )
        for measure in MEASURES
    }
    return found


def _shift(ours: Sequence[Trace], theirs: Sequence[Trace], config: ReportConfig) -> Json:
    """|dH| on the same tokens: mean over a completion's tokens of |H - H_it|, and signed, then over completions."""
    it_bits = {t.key: t.values["prompt_entropy_bits"] for t in theirs}
    pairs = [
        (t.key[0], t.values["prompt_entropy_bits"] - it_bits[t.key])
        for t in ours
        if t.key in it_bits and len(it_bits[t.key]) == t.num_tokens
    ]
    prompts, shifts = [prompt for prompt, _ in pairs], [shift for _, shift in pairs]
    both = {
        name: estimate_json(mean_ci(prompts, [_nanmean(function(shift)) for shift in shifts], config.bootstrap))
        for name, function in (("absolute", np.abs), ("signed", np.asarray))
    }
    return both | {"num_sequences": len(pairs)}


def _mean(traces: Sequence[Trace], measure: str, config: ReportConfig) -> Json | None:
    return estimate_json(mean_ci(_prompts(traces), _per_sequence(traces, measure), config.bootstrap))


def _prompts(traces: Sequence[Trace]) -> list[str]:
    return [t.key[0] for t in traces]


def _per_sequence(traces: Sequence[Trace], measure: str) -> list[float]:
    return [_nanmean(t.values[measure]) for t in traces]


def _nanmean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def _fluency(tables: VariantTables, it: VariantTables, config: ReportConfig, *, part: str) -> Json:
    """Of the primary split's completions, test or `val`; empty ones count in length, distinctness and mentions."""
    keys = tables.keys_of(part, config.primary_split)
    completions = [c for c in tables.completions if (c.prompt_id, c.sample_index) in keys]
    rows = _fluency_rows(tables, config, part)
    measured = [row for row in rows if row.nll_nats is not None]
    first = [c for c in completions if c.sample_index == 0]
    ids = [c.completion_ids for c in completions]
    mentions = rate_ci([r.prompt_id for r in rows], [r.mentions_prompt for r in rows])
    return {
        "perplexity": perplexity([r.nll_nats for r in measured], [r.num_tokens for r in measured]),
        **{f"distinct_{n}": distinct_n(ids, n) for n in (1, 2, 3)},
        "mean_length": sum(map(len, ids)) / len(ids) if ids else None,
        "num_distinct": num_distinct(c.completion for c in completions),
        "distinct_per_100_prompts": 100 * num_distinct(c.completion for c in first) / len(first) if first else None,
        "prompt_mention_rate": mentions.value if mentions else None,
        "prompt_mention_ci95": list(mentions.ci95) if mentions and mentions.ci95 else None,
        "prompt_mention_delta_vs_it": None if tables is it else _mention_delta(rows, _fluency_rows(it, config, part)),
        "ended_by_eos": _share([c.finish_reason == "eos" for c in completions]),
        "num_completions": len(completions),
    }


def _fluency_rows(tables: VariantTables, config: ReportConfig, part: str) -> list[Fluency]:
    keys = tables.keys_of(part, config.primary_split)
    return [row for row in tables.fluency if (row.prompt_id, row.sample_index) in keys]


def _mention_delta(rows: Sequence[Fluency], it_rows: Sequence[Fluency]) -> Json | None:
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
