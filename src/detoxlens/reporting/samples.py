"""Every measure of a variant as a number per row (`evaluation.samples`): what is compared between any two variants.

Named as in metrics.json: `toxicity/p50/rate_gt_50`, `scorers/<scorer>/p50/rate_gt_50`, `fluency/perplexity`; the use of
the prompt is compared on the same text, that of `it`: `attribution/on_base_text/prompt_entropy_bits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detoxlens.attribution.entropy import MEASURES
from detoxlens.common.records import Completion, Fluency, Score
from detoxlens.evaluation.diversity import distinct_by_prompt, num_ngrams, repetition
from detoxlens.evaluation.fluency import perplexity_by_prompt
from detoxlens.evaluation.samples import Sample
from detoxlens.evaluation.toxicity import TOXIC, Missing, values_of
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.cost_metrics import cost_samples
from detoxlens.reporting.effects import cells, step_table, table_of
from detoxlens.reporting.study import Key, Study, VariantTables
from detoxlens.reporting.traces import ANY_METHOD, METHOD_FREE

JENSEN_SHANNON = "jensen_shannon_bits"
REPEATED = 2
"""Length of the n-grams whose repetition within a completion is measured."""


def measure_samples(
    study: Study, variants: Mapping[str, VariantTables], config: ReportConfig, *, missing: Missing
) -> dict[str, dict[str, Sample]]:
    """{variant: {measure: its sample}} of one model, on test prompts; a measure without any value is left out."""
    fluency = {variant: fluency_samples(variants, variant, config, part="test") for variant in variants}
    attribution = _same_text(variants, config, scope=study.scope)
    return {
        variant: {
            **_toxicity(study, tables, missing),
            **{f"fluency/{name}": sample for name, sample in fluency[variant].items()},
            **attribution[variant],
            **cost_samples(study, tables),
        }
        for variant, tables in variants.items()
    }


def fluency_samples(
    variants: Mapping[str, VariantTables], variant: str, config: ReportConfig, *, part: str
) -> dict[str, Sample]:
    """Of the primary split's completions, `test` or `val`: what the entry `fluency` of metrics.json has intervals of.

    Empty completions count in length, variety and mentions; of perplexity and repetition they have none.
    """
    tables = variants[variant]
    completions = of_primary_split(tables, tables.completions, config, part)
    rows = of_primary_split(tables, tables.fluency, config, part)
    measured = [row for row in rows if row.nll_nats is not None]
    sampled = [c for c in completions if c.finish_reason != "unknown"]  # those made elsewhere come without tokens
    prompts = [c.prompt_id for c in sampled]
    found: dict[str, Sample] = {}
    if any(row.num_tokens for row in measured):
        found["perplexity"] = Sample(
            *perplexity_by_prompt(
                [r.prompt_id for r in measured], [r.nll_nats for r in measured], [r.num_tokens for r in measured]
            )
        )
    if sampled:
        lengths = [float(len(c.completion_ids)) for c in sampled]
        found["mean_length"] = Sample(prompts, np.array(lengths))
        found["ended_by_eos"] = Sample(prompts, np.array([c.finish_reason == "eos" for c in sampled]), is_rate=True)
        repeated = np.array([repetition(c.completion_ids, REPEATED) for c in sampled])
        if not np.isnan(repeated).all():
            found[f"repetition_{REPEATED}"] = Sample(prompts, repeated)
    if judged := [row for row in rows if row.mentions_prompt is not None]:
        mentions = np.array([r.mentions_prompt for r in judged])
        found["prompt_mention_rate"] = Sample([r.prompt_id for r in judged], mentions, is_rate=True)
    texts: dict[str, list[Sequence[int]]] = {}
    for completion in sampled:
        texts.setdefault(completion.prompt_id, []).append(completion.completion_ids)
    everyone = [c for other in variants.values() for c in of_primary_split(other, other.completions, config, part)]
    for n in (1, 2, 3):
        if (values := distinct_by_prompt(texts, n, num_ngrams([c.completion_ids for c in everyone], n))) is not None:
            found[f"distinct_adjusted_{n}"] = Sample(*values)
    return found


def of_primary_split(
    tables: VariantTables, rows: Sequence[Completion | Fluency], config: ReportConfig, part: str
) -> list[Completion | Fluency]:
    """The rows that are about the primary split's completions, `test` or `val`."""
    keys = tables.keys_of(part, config.primary_split)
    return [row for row in rows if (row.prompt_id, row.sample_index) in keys]


def scores_of(tables: VariantTables, scorer: str, keys: set[Key]) -> list[Score]:
    return [s for s in tables.scores.get(scorer, ()) if (s.prompt_id, s.sample_index) in keys]


def _toxicity(study: Study, tables: VariantTables, missing: Missing) -> dict[str, Sample]:
    found = {}
    for scorer in tables.scores:
        if study.calibration is not None and scorer == study.calibration.name:
            continue  # its rates are those of another scorer, in the entry `calibrated`
        where = "toxicity" if scorer == study.grader else f"scorers/{scorer}"
        for split in study.splits:
            prompts, toxicity = values_of(scores_of(tables, scorer, tables.keys_of("test", split)), missing)
            if prompts:
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
