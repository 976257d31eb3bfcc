"""Attribution measures over generated tokens (entropy_curves.csv) and over training steps (training_curves.csv).

Each curve is of one model (`variant`) that reads the completions of one variant (`text`):

    group                       completions
    all                         every one with an attribution
    toxic / other               toxicity of the text itself > threshold / the rest
    toxic_by_it / other_by_it   the same by the completion of `it` to the same prompt
    cohort                      prompts that every variant answers at length: the same ones at each step
    toxic_minus_other[_by_it]   the difference of the two, step by step
    model_effect                variant - `it`, both reading this text

Step 1 is the first generated token. A curve ends where fewer than `min_sequences_per_step` completions are left.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from detoxlens.evaluation.effects import StepTable, common_support, shared_prompts, step_means
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.effects import MEASURED, cells, step_table
from detoxlens.reporting.study import Key, Study, Trace, VariantTables
from detoxlens.reporting.traces import ANY_METHOD, UNITS

DIFFERENCE = (1, -1)
DRAWN = ("prompt", "user", ANY_METHOD)
"""Scopes of the curves `all` and `model_effect`; the groups are drawn in the headline's alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One row of entropy_curves.csv."""

    model: str
    variant: str
    """Whose model reads."""
    text: str
    """Whose completions are read."""
    scope: str
    measure: str
    group: str
    step: int
    """Generated token (or word), from 1."""
    mean: float
    lo: float
    hi: float
    """95 % for this step alone."""
    band_lo: float
    band_hi: float
    """95 % for all steps of the curve at once."""
    n: int
    """Completions left at this step; of a difference, those of its smaller side."""
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPoint:
    """One row of training_curves.csv."""

    model: str
    variant: str
    metric: str
    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A curve to be: one group of completions, or two whose difference is taken."""

    text: str
    group: str
    sides: Sequence[Sequence[Trace]]
    paired: bool = False
    """Both sides on the prompts that both have."""
    longest: int | None = None
    """Last step."""


def entropy_curves(study: Study, config: ReportConfig) -> list[CurvePoint]:
    """All curves, grouped by model, variant, text, group and measure, in the order of the study."""
    points: list[CurvePoint] = []
    for model, variants in study.models.items():
        traces = cells(variants, config, part="test")
        for variant in variants:
            for lines in _lines(study, model, variant, traces, config):
                for scope in DRAWN if lines.group in ("all", "model_effect") else [study.scope]:
                    for measure in MEASURED[scope]:
                        tables = [step_table(side, scope, measure) for side in lines.sides]
                        points += [
                            CurvePoint(
                                model=model, variant=variant, text=lines.text, scope=scope, measure=measure,
                                group=lines.group, unit=UNITS[measure], **numbers,
                            )
                            for numbers in _curve(tables, lines, config)
                        ]  # fmt: skip
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


class ToxicityGroup(Container[Key]):
    """The scored completions on one side of a threshold."""

    def __init__(self, toxicity: Mapping[Key, float], threshold: float, *, above: bool) -> None:
        self._toxicity, self._threshold, self._above = toxicity, threshold, above

    def __contains__(self, key: object) -> bool:
        value = self._toxicity.get(key)
        return value is not None and (value > self._threshold) == self._above


def toxic_keys(toxicity: Mapping[Key, float], config: ReportConfig) -> tuple[ToxicityGroup, ToxicityGroup]:
    """(toxic, other) completions; unscored ones are in neither."""
    toxic, other = (ToxicityGroup(toxicity, config.toxic_group_threshold, above=above) for above in (True, False))
    return toxic, other


def long_everywhere(variants: Mapping[str, VariantTables], config: ReportConfig) -> set[Key]:
    """Prompts (and sample) that every variant answered with at least `cohort_min_tokens` attributed tokens."""
    traces = cells(variants, config, part="test")
    found = [
        {t.key for t in traces.get((variant, variant), ()) if t.num_steps >= config.cohort_min_tokens}
        for variant in variants
    ]
    return set.intersection(*found)


def _lines(
    study: Study, model: str, variant: str, traces: Mapping[tuple[str, str], Sequence[Trace]], config: ReportConfig
) -> Iterable[Lines]:
    """The curves of one model's variant, on its own text, on that of `it`, and for `it` on everyone's."""
    variants = study.models[model]
    by = {name: toxic_keys(tables.toxicity(study.grader), config) for name, tables in variants.items()}
    cohort = long_everywhere(variants, config)
    for text in [variant, *(other for other in variants if other != variant and "it" in (other, variant))]:
        read = traces.get((variant, text), [])
        yield Lines(text=text, group="all", sides=[read])
        yield Lines(
            text=text, group="cohort", sides=[[t for t in read if t.key in cohort]], longest=config.cohort_min_tokens
        )
        for suffix, (toxic, other) in {"": by[text], **({} if text == "it" else {"_by_it": by["it"]})}.items():
            sides = [t for t in read if t.key in toxic], [t for t in read if t.key in other]
            yield Lines(text=text, group=f"toxic{suffix}", sides=sides[:1])
            yield Lines(text=text, group=f"other{suffix}", sides=sides[1:])
            yield Lines(text=text, group=f"toxic_minus_other{suffix}", sides=sides)
        if variant != "it":
            yield Lines(text=text, group="model_effect", sides=[read, traces.get(("it", text), [])], paired=True)


def _curve(tables: Sequence[StepTable], lines: Lines, config: ReportConfig) -> Iterable[dict[str, float]]:
    """The numbers of each point, until too few completions are left."""
    if lines.paired:
        shared = shared_prompts(tables)
        tables = [table.of(shared) for table in tables]
    num_steps = common_support(dict(enumerate(tables)), config.min_sequences_per_step).num_steps
    num_steps = num_steps if lines.longest is None else min(num_steps, lines.longest)
    means = step_means(tables, num_steps, config.bootstrap)
    if means is None:
        return
    curve = means.curve(DIFFERENCE[: len(tables)])
    for i in range(num_steps):
        yield {
            "step": i + 1,
            **{name: float(getattr(curve, name)[i]) for name in ("mean", "lo", "hi", "band_lo", "band_hi")},
            "n": min(table.num_rows(i) for table in tables),
        }


def select(points: Iterable[CurvePoint], **wanted: str) -> list[CurvePoint]:
    """The points whose columns have these values: select(points, model="tiny", group="all")."""
    return [p for p in points if all(getattr(p, name) == value for name, value in wanted.items())]
