"""The entry `effects` of metrics.json: model effect, text effect and total of every measure, on the common support.

All variants of a model are compared on the same steps with the same weights (`evaluation.effects`). What cannot be had
is null, with a sentence in `reason`; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detoxlens.attribution.entropy import MEASURES
from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import EFFECTS, Cell, StepTable, Support, common_support, shared_prompts, step_means
from detoxlens.params.report import Bootstrap, ReportConfig
from detoxlens.reporting.study import Trace, VariantTables
from detoxlens.reporting.traces import ANY_METHOD, METHOD_FREE, SCOPES

Json = dict[str, Any]
Cells = Mapping[Cell, Sequence[Trace]]
ON_BASE_TEXT = ("level", "model_effect_on_base_text", "total")
"""Those that need no text of the variant read by base: what sweeps go by, on the same text for every trial."""
AVERAGED = ("level", "model_effect", "text_effect", "total")
"""The effects of `EFFECTS` that are averaged over both orders, with what they add up to."""
MEASURED = {scope: tuple(MEASURES) for scope in SCOPES} | {ANY_METHOD: METHOD_FREE}
"""Scope -> measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quads:
    """One measure of every variant of a model: who reads whose text, on the prompts that all of the variant's have."""

    tables: Mapping[str, Mapping[Cell, StepTable]]
    """By variant, those that have enough; the cells of `quad_of` that are wanted, in its order."""
    support: Support
    """The steps that all of them share."""
    reasons: Mapping[str, str]
    """Why a variant is not among them."""
    num_left_out: Mapping[str, int]
    """Prompts of a variant that one of its cells does not have."""


def effects(
    variants: Mapping[str, VariantTables],
    config: ReportConfig,
    *,
    part: str = "test",
    scopes: Iterable[str] = MEASURED,
    method: str | None = None,
    names: Sequence[str] = tuple(EFFECTS),
) -> dict[str, Json]:
    """{variant: {scope: {measure: its effects}}} of one model.

    Args:
        variants: the model's, `it` among them.
        config: primary split, bootstrap, and how many completions a step needs.
        part: `test` or `val` prompts.
        scopes: those wanted, of `MEASURED`.
        method: a further method of attribution; None is the headline's.
        names: of `EFFECTS`, those wanted.
    """
    found: dict[str, Json] = {variant: {scope: {} for scope in scopes} for variant in variants}
    for scope, measure, quads in measured(variants, config, part=part, scopes=scopes, method=method, names=names):
        for variant, effect in two_by_two(variants, quads, config, names).items():
            found[variant][scope][measure] = effect
    return found


def measured(
    variants: Mapping[str, VariantTables],
    config: ReportConfig,
    *,
    part: str = "test",
    scopes: Iterable[str] = MEASURED,
    method: str | None = None,
    names: Sequence[str] = tuple(EFFECTS),
) -> Iterator[tuple[str, str, Quads]]:
    """(scope, measure, its tables) of one model; the arguments are those of `effects`."""
    traces = cells(variants, config, part=part, method=method)
    for scope in scopes:
        for measure in MEASURED[scope]:
            tables = {cell: step_table(of, scope, measure) for cell, of in traces.items()}
            yield scope, measure, quads_of(variants, tables, config, names)


def cells(
    variants: Mapping[str, VariantTables], config: ReportConfig, *, part: str, method: str | None = None
) -> dict[Cell, list[Trace]]:
    """The traces of the primary split's prompts, by who reads and whose text it is."""
    found: dict[Cell, list[Trace]] = {}
    for tables in variants.values():
        for trace in tables.traces if method is None else tables.other_methods.get(method, ()):
            found.setdefault((trace.reader, trace.text_source), []).append(trace)
    keys = {variant: tables.keys_of(part, config.primary_split) for variant, tables in variants.items()}
    return {
        (reader, text): [t for t in of if t.key in keys[text]] for (reader, text), of in found.items() if text in keys
    }


def step_table(traces: Sequence[Trace], scope: str, measure: str) -> StepTable:
    """One measure of these traces, a row each; those without the scope have no value."""
    blank = np.empty(0)
    return table_of(traces, [t.values[scope][measure] if scope in t.values else blank for t in traces])


def table_of(traces: Sequence[Trace], rows: Sequence[np.ndarray]) -> StepTable:
    """A row of numbers (its steps,) for each of these traces."""
    values = np.full((len(traces), max((t.num_steps for t in traces), default=0)), np.nan)
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
    weights = np.array([t.weight for t in traces])
    return StepTable(prompts=[t.key[0] for t in traces], values=values, weights=weights)


def quads_of(
    variants: Iterable[str],
    tables: Mapping[Cell, StepTable],
    config: ReportConfig,
    names: Sequence[str],
    *,
    needed: str = "a value at the first step",
) -> Quads:
    """The tables to compare, on the support that all variants share that have one of their own.

    Args:
        variants: in the order of the report.
        tables: the measure, by who reads and whose text.
        config: how many completions a step needs.
        names: of `EFFECTS`, those wanted.
        needed: what a completion must have to count, for the sentence in `reasons`.
    """
    minimum = config.min_sequences_per_step
    compared: dict[str, dict[Cell, StepTable]] = {}
    reasons: dict[str, str] = {}
    left_out: dict[str, int] = {}
    for variant in variants:
        weights = _weights(variant, names)
        wanted = [cell for cell in quad_of(variant) if any(of[cell] for of in weights.values())]
        if missing := [cell for cell in wanted if cell not in tables]:
            reasons[variant] = f"no attribution of {' and of '.join(f'`{r}` reading `{t}`' for r, t in missing)}"
            continue
        shared = shared_prompts([tables[cell] for cell in wanted])
        quad = {cell: tables[cell].of(shared) for cell in wanted}
        own = common_support(quad, minimum)
        if not own.num_steps:
            reader, text = own.limited_by
            reasons[variant] = (
                f"fewer than {minimum} completions of `{text}` have {needed} when `{reader}` reads "
                f"(report.min_sequences_per_step; {len(shared)} prompts are in every combination of model and text)"
            )
            continue
        compared[variant] = quad
        left_out[variant] = len(set(tables[wanted[-1]].prompts) - shared)
    together = {(variant, cell): table for variant, quad in compared.items() for cell, table in quad.items()}
    support = common_support(together, minimum) if together else Support(0, None)
    return Quads(tables=compared, support=support, reasons=reasons, num_left_out=left_out)


def two_by_two(variants: Iterable[str], quads: Quads, config: ReportConfig, names: Sequence[str]) -> dict[str, Json]:
    """{variant: effects of one measure}; the arguments are those of `quads_of`."""
    return {
        variant: _json(
            quads.tables[variant],
            _weights(variant, names),
            quads.support,
            quads.num_left_out[variant],
            config.bootstrap,
        )
        if variant in quads.tables
        else _null(_weights(variant, names), quads.reasons[variant])
        for variant in variants
    }


def quad_of(variant: str) -> list[Cell]:
    """The combinations in the order of `EFFECTS`; of `it` there is one."""
    return [("it", "it")] if variant == "it" else [("it", "it"), ("it", variant), (variant, "it"), (variant, variant)]


def _weights(variant: str, names: Sequence[str]) -> dict[str, dict[Cell, float]]:
    """Per effect the weight of each combination; `it` has a level and is compared with nothing."""
    if variant == "it":
        return {"level": {("it", "it"): 1}}
    return {name: dict(zip(quad_of(variant), EFFECTS[name], strict=True)) for name in names}


def _json(
    tables: Mapping[Cell, StepTable],
    weights: Mapping[str, Mapping[Cell, float]],
    support: Support,
    num_left_out: int,
    bootstrap: Bootstrap,
) -> Json:
    means = step_means(list(tables.values()), support.num_steps, bootstrap)
    assert means is not None, "a table on its support has a value at every step"
    return {
        **{name: estimate_json(means.contrast([of[cell] for cell in tables])) for name, of in weights.items()},
        "num_steps": support.num_steps,
        "limited_by": support.limited_by[1][1],
        "num_prompts": means.num_prompts,
        "num_left_out": num_left_out,
        "reason": None,
    }


def _null(names: Iterable[str], reason: str) -> Json:
    counts = {"num_steps": 0, "limited_by": None, "num_prompts": 0, "num_left_out": 0}
    return dict.fromkeys(names) | counts | {"reason": reason}
