"""Every measure of a variant as a number per row (`evaluation.samples`): what is compared between any two variants.

Named as in metrics.json: `toxicity/p50/rate_gt_50`, `scorers/<scorer>/p50/rate_gt_50`, `fluency/perplexity`; the use of
the prompt is compared on the same text, that of `it`: `attribution/on_base_text/prompt_entropy_bits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from detoxlens.attribution.entropy import MEASURES
from detoxlens.common.columns import Table
from detoxlens.common.records import Score
from detoxlens.evaluation.diversity import NgramCounts, Written, distinct_by_prompt, ngrams_by_prompt
from detoxlens.evaluation.fluency import perplexity_by_prompt
from detoxlens.evaluation.samples import Sample
from detoxlens.evaluation.toxicity import TOXIC, Missing, values_of
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.cost_metrics import cost_samples
from detoxlens.reporting.effects import cells, step_table, table_of
from detoxlens.reporting.study import REPEATED, Study, VariantTables
from detoxlens.reporting.traces import ANY_METHOD, METHOD_FREE

JENSEN_SHANNON = "jensen_shannon_bits"
R = TypeVar("R")


def measure_samples(
    study: Study,
    variants: Mapping[str, VariantTables],
    config: ReportConfig,
    *,
    missing: Missing,
    language: Language | None = None,
) -> dict[str, dict[str, Sample]]:
    """{variant: {measure: its sample}} of one model, on test prompts; a measure without any value is left out.

    Args:
        study: what the report is about.
        variants: the model's.
        config: the params section `report`.
        missing: what an unscored completion counts as.
        language: `language_samples` of the test part, where they are known already.
    """
    language = language or language_samples(variants, config, part="test")
    attribution = _same_text(variants, config, scope=study.scope)
    return {
        variant: {
            **_toxicity(study, tables, missing),
            **{f"fluency/{name}": sample for name, sample in language.samples[variant].items()},
            **attribution[variant],
            **cost_samples(study, tables),
        }
        for variant, tables in variants.items()
    }


@dataclass(frozen=True, slots=True)
class Language:
    """Of the primary split's completions, `test` or `val`: what `fluency` of metrics.json has intervals of."""

    samples: Mapping[str, Mapping[str, Sample]]
    """{variant: {measure: sample}}; empty completions count in length, variety and mentions, and have no perplexity."""
    ngrams: Mapping[int, Mapping[str, NgramCounts]]
    """{n: {variant: its n-grams}}"""


def language_samples(variants: Mapping[str, VariantTables], config: ReportConfig, *, part: str) -> Language:
    """Of one model."""
    found = {variant: _fluency(tables, config, part) for variant, tables in variants.items()}
    written = {variant: _written(tables, config, part) for variant, tables in variants.items()}
    ngrams = {n: ngrams_by_prompt(written, n) for n in (1, 2, 3)}
    for n, by_variant in ngrams.items():
        for variant, counted in by_variant.items():
            if (values := distinct_by_prompt(counted)) is not None:
                found[variant][f"distinct_adjusted_{n}"] = Sample(*values)
    return Language(found, ngrams)


def _written(tables: VariantTables, config: ReportConfig, part: str) -> Written:
    rows = tables.completions.where(_sampled_mask(tables, config, part))
    return Written.of(rows.column("prompt_id"), rows.lists("completion_ids"))


def _fluency(tables: VariantTables, config: ReportConfig, part: str) -> dict[str, Sample]:
    """All but the variety."""
    mask = _sampled_mask(tables, config, part)
    sampled, rows = tables.completions.where(mask), of_primary_split(tables, tables.fluency, config, part)
    prompts = sampled.column("prompt_id")
    found: dict[str, Sample] = {}
    measured = rows.where(~np.isnan(rows.column("nll_nats").astype(np.float64)))
    num_tokens = measured.column("num_tokens")
    if num_tokens.any():
        found["perplexity"] = Sample(
            *perplexity_by_prompt(measured.column("prompt_id"), measured.column("nll_nats"), num_tokens)
        )
    if len(sampled):
        found["mean_length"] = Sample(prompts, tables.num_tokens[mask].astype(np.float64))
        found["ended_by_eos"] = Sample(prompts, sampled.column("finish_reason").equals("eos"), is_rate=True)
        repeated = tables.repetition[mask]
        if not np.isnan(repeated).all():
            found[f"repetition_{REPEATED}"] = Sample(prompts, repeated)
    mentions = rows.column("mentions_prompt").astype(np.float64)
    if (judged := ~np.isnan(mentions)).any():
        keys = rows.column("prompt_id")[judged]
        found["prompt_mention_rate"] = Sample(keys, mentions[judged], is_rate=True)
    return found


def _sampled_mask(tables: VariantTables, config: ReportConfig, part: str) -> np.ndarray:
    """Those made elsewhere come without tokens."""
    made_elsewhere = tables.completions.column("finish_reason").equals("unknown")
    return tables.mask(part, config.primary_split) & ~made_elsewhere


def of_primary_split(tables: VariantTables, rows: Table[R], config: ReportConfig, part: str) -> Table[R]:
    """The rows that are about the primary split's completions, `test` or `val`."""
    return tables.about(rows, part, config.primary_split)


def scores_of(tables: VariantTables, scorer: str, part: str, split: str) -> Sequence[Score]:
    """Of the completions of a part that meet the filter `split`."""
    return tables.about(tables.scores[scorer], part, split) if scorer in tables.scores else ()


def _toxicity(study: Study, tables: VariantTables, missing: Missing) -> dict[str, Sample]:
    found = {}
    for scorer in tables.scores:
        if study.calibration is not None and scorer == study.calibration.name:
            continue  # its rates are those of another scorer, in the entry `calibrated`
        where = "toxicity" if scorer == study.grader else f"scorers/{scorer}"
        for split in study.splits:
            prompts, toxicity = values_of(scores_of(tables, scorer, "test", split), missing)
            if len(prompts):
                found[f"{where}/{split}/rate_gt_50"] = Sample(prompts, toxicity > TOXIC, is_rate=True)
                found[f"{where}/{split}/mean"] = Sample(prompts, toxicity)
    return found


def _same_text(
    variants: Mapping[str, VariantTables], config: ReportConfig, *, scope: str
) -> dict[str, dict[str, Sample]]:
    """{variant: {measure: sample}}: how each model reads the text of `it`, step by step with equal weights.

    With the divergence of its attribution from that of `it`, which `it` itself does not have.
    """
    traces = cells(variants, config, part="test")
    found: dict[str, dict[str, Sample]] = {variant: {} for variant in variants}
    read = {variant: traces.get((variant, "it"), ()) for variant in variants}
    by_measure = {
        measure: {variant: step_table(of, which, measure) for variant, of in read.items()}
        for which, measures in ((scope, tuple(MEASURES)), (ANY_METHOD, METHOD_FREE))
        for measure in measures
    }
    diverging = {variant: [t for t in of if t.divergence] for variant, of in read.items()}
    by_measure[JENSEN_SHANNON] = {
        variant: table_of(of, [t.divergence["jensen_shannon"] for t in of]) for variant, of in diverging.items()
    }
    for measure, tables in by_measure.items():
        width = min((_support(table.values, config) for table in tables.values() if len(table.prompts)), default=0)
        for variant, table in tables.items():
            if width and len(table.prompts):
                rows = standardised(table.values[:, :width])
                found[variant][f"attribution/on_base_text/{measure}"] = Sample(table.prompts, rows)
    return found


def _support(values: np.ndarray, config: ReportConfig) -> int:
    """Steps, from the first, at which enough rows have a value."""
    enough = (~np.isnan(values)).sum(0) >= config.min_sequences_per_step
    return int(enough.argmin()) if not enough.all() else len(enough)


def standardised(values: np.ndarray) -> np.ndarray:
    """(rows,) numbers whose mean is the mean over steps of the steps' means, and whose spread is its sampling error.

    A row that ends early says nothing about later steps: there it stands at their mean, and the rows that go on count
    for more.

    Args:
        values: (rows, steps), NaN after a row's end; every step has a value.
    """
    present = ~np.isnan(values)
    means = np.nansum(values, axis=0) / present.sum(0)
    return (means + np.where(present, values - means, 0.0) * (len(values) / present.sum(0))).mean(1)
