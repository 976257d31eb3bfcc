"""The entry `dose` of metrics.json: an adapter at several strengths, and methods at equal toxicity.

    {model: {ft: {"dose": {strengths: {"0.5": {toxicity, prompt_entropy_bits, ..., perplexity}}, num_steps, reason,
                           at_equal_toxicity: {rl: {"50": {strengths: {ft, rl}, prompt_entropy_bits: ft - rl, ...}}}}}}}

Of the variants in `run.interpolated_variants`, from what the stage `interpolate` wrote. How a path is read between two
strengths stands in `evaluation.dose`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.numbers import number
from detoxlens.common.records import Attribution, Dose
from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.dose import MOST_MISSED, PERPLEXITY, TOXICITY, Path, Strength, distance, path
from detoxlens.evaluation.effects import StepTable, common_support, shared_prompts
from detoxlens.evaluation.multiplicity import compared_json
from detoxlens.evaluation.rates import rate_ci
from detoxlens.evaluation.toxicity import TOXIC
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.effects import step_table, table_of
from detoxlens.reporting.samples import JENSEN_SHANNON
from detoxlens.reporting.study import Trace
from detoxlens.reporting.traces import trace_of

Json = dict[str, Any]
Strengths = Mapping[float, Strength]
LEVELS = (0.75, 0.5, 0.25)
"""Shares of base's toxicity at which methods are compared."""
EFFECTS = ("prompt_entropy_bits", "prompt_dependence_excess_bits")
COMPARED = (*EFFECTS, JENSEN_SHANNON, PERPLEXITY)
"""What is compared at equal toxicity."""


def read_strengths(layout: Layout, model: str, variant: str, *, scope: str, unit: str) -> Strengths:
    """What one variant was measured to do at each strength.

    Raises:
        UserError: a table is not there.
    """
    folder = layout.dose(model, variant)
    doses, rows = (read_rows(folder / f"{n}.parquet", c) for n, c in (("doses", Dose), ("attributions", Attribution)))
    of_base = {(a.prompt_id, a.sample_index): a.scores for a in rows if a.reader == a.text_source == "it"}
    cells: dict[tuple[str, str], list[Trace]] = {}
    for a in rows:
        is_forced = a.text_source == "it" and a.reader != "it"
        trace = trace_of(a, unit=unit, it_scores=of_base.get((a.prompt_id, a.sample_index)) if is_forced else None)
        if trace is not None:
            cells.setdefault((a.reader, a.text_source), []).append(trace)
    by_alpha: dict[float, list[Dose]] = {}
    for dose in doses:
        by_alpha.setdefault(dose.alpha, []).append(dose)
    return {alpha: _strength(alpha, of, cells, scope=scope) for alpha, of in by_alpha.items()}


def _strength(
    alpha: float, doses: Sequence[Dose], cells: Mapping[tuple[str, str], Sequence[Trace]], *, scope: str
) -> Strength:
    def column(values: Sequence[float | None]) -> StepTable:
        rows = np.array([[np.nan if value is None else value] for value in values], dtype=np.float64)
        return StepTable(prompts=[dose.prompt_id for dose in doses], values=rows)

    name = f"{alpha:g}"
    quads, means = {}, {}
    if forced := cells.get((name, "it")):
        keys = (("it", "it"), ("it", name), (name, "it"), (name, name))
        for measure in EFFECTS:
            tables = [step_table(cells.get(key, ()), scope, measure) for key in keys]
            shared = shared_prompts(tables)
            quads[measure] = [table.of(shared) for table in tables]
        having = [t for t in forced if t.divergence]
        means[JENSEN_SHANNON] = table_of(having, [t.divergence["jensen_shannon"] for t in having])
    return Strength(
        toxic=column([None if dose.toxicity is None else float(dose.toxicity > TOXIC) for dose in doses]),
        nll_nats=column([dose.nll_nats for dose in doses]),
        num_tokens=column([None if dose.nll_nats is None else dose.num_tokens for dose in doses]),
        quads=quads,
        means=means,
    )


def dose_metrics(
    variants: Mapping[str, Strengths], config: ReportConfig, groups: Mapping[str, str] | None = None
) -> dict[str, Json]:
    """{variant: dose} of one model, all paths on the same steps and the same draws of prompts.

    Args:
        variants: those with an adapter at several strengths.
        config: which pairs, bootstrap, and how many completions a step needs.
        groups: variant -> method, of which several seeds are compared together, under the first; None is each its own.
    """
    keys = list(dict.fromkeys(p for of in variants.values() for s in of.values() for p in s.toxic.prompts))
    tables = {
        (variant, alpha, name, i): table
        for variant, of in variants.items()
        for alpha, strength in of.items()
        for name, found in (strength.quads | {n: [t] for n, t in strength.means.items()}).items()
        for i, table in enumerate(found)
    }
    support = common_support(tables, config.min_sequences_per_step) if tables else None
    num_steps = support.num_steps if support else 0
    reason = None if num_steps else _why(support.limited_by if support else None, config)
    paths = {variant: path(of, keys, num_steps, config.bootstrap) for variant, of in variants.items()}
    found = {
        variant: {
            "strengths": {f"{alpha:g}": _at(of[alpha], paths[variant], i) for i, alpha in enumerate(of)},
            "num_prompts": len(keys),
            "num_steps": num_steps,
            "reason": reason,
        }
        for variant, of in variants.items()
    }
    methods: dict[str, list[str]] = {}
    for variant in variants:
        methods.setdefault((groups or {}).get(variant, variant), []).append(variant)
    for one, other in _pairs(list(methods), config):
        ours, theirs = methods[one], methods[other]
        levels = {f"{100 * level:.0f}": _equal(paths, ours, theirs, level, reason) for level in LEVELS}
        found[ours[0]].setdefault("at_equal_toxicity", {})[other] = levels
    return found


def _why(limited_by: Any, config: ReportConfig) -> str:
    if limited_by is None:
        return "nothing was attributed (interpolate.num_attributed)"
    variant, alpha, _, _ = limited_by
    return (
        f"fewer than report.min_sequences_per_step={config.min_sequences_per_step} attributed completions have a value "
        f"at the first step with `{variant}` at {alpha:g} (interpolate.num_attributed)"
    )


def _at(strength: Strength, of: Path, index: int) -> Json:
    measured = [name for name, values in of.values.items() if name != TOXICITY and not np.isnan(values[index])]
    found = {name: estimate_json(of.at_strength(name, index)) for name in measured}
    return {TOXICITY: estimate_json(rate_ci(strength.toxic.prompts, strength.toxic.values[:, 0]))} | found


def _pairs(methods: Sequence[str], config: ReportConfig) -> list[tuple[str, str]]:
    if config.pairs == "all":
        return list(combinations(methods, 2))
    return [] if config.pairs == "none" else [pair for pair in config.pairs if set(pair) <= set(methods)]


def _equal(
    paths: Mapping[str, Path], ours: Sequence[str], theirs: Sequence[str], level: float, reason: str | None
) -> Json:
    """Ours minus theirs where all have `level` times base's toxicity; null with a reason where they have not."""
    strengths = {name: paths[name].strength_at(level) for name in (*ours, *theirs)}
    found: Json = {"strengths": {name: None if np.isnan(value) else value for name, value in strengths.items()}}
    short = [
        f"the toxicity of `{name}` falls to {number(100 * paths[name].lowest, 0)} % of base's at least"
        for name, value in strengths.items()
        if np.isnan(value)
    ]
    for quantity in COMPARED:
        if any(quantity not in paths[name].values for name in (*ours, *theirs)):
            found[quantity] = {"value": None, "ci95": None, "reason": reason}
            continue
        sides = [[paths[name] for name in names] for names in (ours, theirs)]
        estimate, missed = distance(*sides, quantity, level)
        why = "; ".join(short) or None
        if estimate is not None and missed > MOST_MISSED:
            why = f"no interval: {number(100 * missed, 0)} % of the resampled paths do not fall so far"
        found[quantity] = (compared_json(estimate) or {"value": None, "ci95": None}) | {"reason": why}
    return found
