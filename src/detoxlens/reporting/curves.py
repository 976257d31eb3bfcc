"""Attribution measures over generated tokens (entropy_curves.csv) and over training steps (training_curves.csv).

    group           completions                                              text
    all             every one with an attribution                           own, it
    toxic / other   own toxicity > threshold / the rest                      own
    toxic_by_it / other_by_it   the same by the `it` completion of the prompt   own, it
    cohort          prompts that every variant answers at length: the same ones at each step   own, it

Step 1 is the first generated token. A curve ends where fewer than `min_sequences_per_step` completions go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.stats import curve_ci
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.study import MEASURES, Key, Study, Trace, VariantTables


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One row of entropy_curves.csv."""

    model: str
    variant: str
    measure: str
    text_source: str
    group: str
    step: int
    """Generated token, from 1."""
    mean: float
    lo: float
    hi: float
    n: int
    """Completions still going on at this step."""
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPoint:
    """One row of training_curves.csv."""

    model: str
    variant: str
    metric: str
    step: int
    value: float


def entropy_curves(study: Study, config: ReportConfig) -> list[CurvePoint]:
    """All curves, grouped by model, variant, text, group and measure, in the order of the study."""
    points: list[CurvePoint] = []
    for model, variants in study.models.items():
        cohort = long_everywhere(variants, config)
        for variant in variants:
            for text_source, group, traces in _groups(study, model, variant, cohort, config):
                longest = config.cohort_min_tokens if group == "cohort" else None
                for measure, unit in MEASURES.items():
                    for step, mean, lo, hi, n in _curve(traces, measure, longest, config):
                        points.append(
                            CurvePoint(
                                model=model,
                                variant=variant,
                                measure=measure,
                                text_source=text_source,
                                group=group,
                                step=step,
                                mean=mean,
                                lo=lo,
                                hi=hi,
                                n=n,
                                unit=unit,
                            )
                        )
    return points


def training_curves(study: Study) -> list[TrainingPoint]:
    """Every number that training logged, in long form."""
    return [
        TrainingPoint(model=model, variant=variant, metric=metric, step=int(row["step"]), value=float(value))
        for model, variants in study.models.items()
        for variant, tables in variants.items()
        for row in tables.history
        for metric, value in row.items()
        if metric != "step" and value is not None
    ]


def primary_traces(
    tables: VariantTables, it: VariantTables, text_source: str, config: ReportConfig, *, part: str = "test"
) -> list[Trace]:
    """The traces of the primary split's completions, of its test or `val` part, on the own text or on that of `it`."""
    keys = (tables if text_source == "own" else it).keys_of(part, config.primary_split)
    return [t for t in tables.traces if t.text_source == text_source and t.key in keys]


def toxic_keys(toxicity: Mapping[Key, float], config: ReportConfig) -> tuple[set[Key], set[Key]]:
    """(toxic, other) completions; unscored ones are in neither."""
    toxic = {key for key, value in toxicity.items() if value > config.toxic_group_threshold}
    return toxic, set(toxicity) - toxic


def long_everywhere(variants: Mapping[str, VariantTables], config: ReportConfig) -> set[Key]:
    """Prompts (and sample) that every variant answered with at least `cohort_min_tokens` attributed tokens."""
    it = variants["it"]
    found = [
        {t.key for t in primary_traces(tables, it, "own", config) if t.num_tokens >= config.cohort_min_tokens}
        for tables in variants.values()
    ]
    return set.intersection(*found)


def _groups(
    study: Study, model: str, variant: str, cohort: set[Key], config: ReportConfig
) -> Iterable[tuple[str, str, list[Trace]]]:
    """(text_source, group, its traces) of one variant; for `it` itself the groups "by it" are its own, left out."""
    tables, it = study.models[model][variant], study.models[model]["it"]
    toxic, other = toxic_keys(tables.toxicity(study.grader), config)
    toxic_by_it, other_by_it = toxic_keys(it.toxicity(study.grader), config)
    by_it = {} if variant == "it" else {"toxic_by_it": toxic_by_it, "other_by_it": other_by_it}
    groups = {"own": {"toxic": toxic, "other": other, **by_it, "cohort": cohort}, "it": {**by_it, "cohort": cohort}}
    for text_source, members in groups.items():
        traces = primary_traces(tables, it, text_source, config)
        yield text_source, "all", traces
        for group, keys in members.items():
            yield text_source, group, [t for t in traces if t.key in keys]


def _curve(
    traces: Sequence[Trace], measure: str, longest: int | None, config: ReportConfig
) -> Iterable[tuple[int, float, float, float, int]]:
    """(step, mean, lo, hi, n) until too few sequences are left."""
    values = matrix(traces, measure)[:, :longest]
    n = (~np.isnan(values)).sum(0)
    enough = n >= config.min_sequences_per_step
    length = len(n) if enough.all() else int(np.argmin(enough))
    mean, lo, hi = curve_ci(
        [t.key[0] for t in traces],
        values[:, :length],
        config.bootstrap,
    )
    for i in range(length):
        yield i + 1, float(mean[i]), float(lo[i]), float(hi[i]), int(n[i])


def matrix(traces: Sequence[Trace], measure: str) -> np.ndarray:
    """(sequences, steps), NaN after a completion's end."""
    width = max((t.num_tokens for t in traces), default=0)
    values = np.full((len(traces), width), np.nan)
    for row, trace in enumerate(traces):
        values[row, : trace.num_tokens] = trace.values[measure]
    return values
