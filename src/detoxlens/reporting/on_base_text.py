"""How differently a variant weighs base's text, token by token: |dH| and divergences. Of tables, MLflow and sweeps.

All variants read the same completions, those of `it`, so the means are over the same steps with the same weights: 1..S,
S being the last step at which each variant still has `report.min_sequences_per_step` values (`evaluation.effects`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import Cell, StepTable, common_support, step_means
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.effects import table_of
from detoxlens.reporting.study import Trace
from detoxlens.reporting.traces import DIVERGENCES

Json = dict[str, Any]
SHIFTS = ("absolute", "signed")


def on_base_text(
    variants: Sequence[str], traces: Mapping[Cell, Sequence[Trace]], config: ReportConfig, *, scope: str
) -> dict[str, Json]:
    """{variant: {entropy_shift_bits: {absolute, signed}, divergence_from_it_bits: {kl, jensen_shannon}}}, with counts.

    KL is infinite where a token of the completion counts for nothing in `it`; such completions are left out of its mean
    and counted.

    Args:
        variants: all but `it`.
        traces: by who reads and whose text.
        config: bootstrap, and how many completions a step needs.
        scope: the headline's, for the entropy.
    """
    it = {t.key: t.values[scope]["prompt_entropy_bits"] for t in traces.get(("it", "it"), ())}
    found: dict[str, Json] = {}
    tables: dict[str, dict[str, StepTable]] = {name: {} for name in (*SHIFTS, *DIVERGENCES)}
    for variant in variants:
        forced = traces.get((variant, "it"), ())
        same = [t for t in forced if t.key in it and len(it[t.key]) == t.num_steps]
        shifts = [t.values[scope]["prompt_entropy_bits"] - it[t.key] for t in same]
        diverging = [t for t in forced if t.divergence]
        infinite = [bool(np.isinf(t.divergence["kl"]).any()) for t in diverging]
        finite = [t for t, bad in zip(diverging, infinite, strict=True) if not bad]
        tables["absolute"][variant] = table_of(same, [np.abs(shift) for shift in shifts])
        tables["signed"][variant] = table_of(same, shifts)
        tables["kl"][variant] = table_of(finite, [t.divergence["kl"] for t in finite])
        tables["jensen_shannon"][variant] = table_of(diverging, [t.divergence["jensen_shannon"] for t in diverging])
        found[variant] = {
            "entropy_shift_bits": {"num_sequences": len(same)},
            "divergence_from_it_bits": {"num_sequences": len(diverging), "num_infinite_kl": sum(infinite)},
        }
    for name, of in tables.items():
        entry = "entropy_shift_bits" if name in SHIFTS else "divergence_from_it_bits"
        for variant, mean in _means(of, config).items():
            found[variant][entry][name] = mean
    return found


def _means(tables: Mapping[str, StepTable], config: ReportConfig) -> dict[str, Json]:
    """{variant: {value, ci95, num_steps, reason}} on the support of all that have one of their own."""
    minimum = config.min_sequences_per_step
    compared = {variant: of for variant, of in tables.items() if common_support({variant: of}, minimum).num_steps}
    num_steps = common_support(compared, minimum).num_steps if compared else 0
    why = (
        f"fewer than report.min_sequences_per_step={minimum} completions of base have a value at the first step when "
        "the variant reads them"
    )
    found: dict[str, Json] = {}
    for variant, of in tables.items():
        means = step_means([of], num_steps, config.bootstrap) if variant in compared else None
        found[variant] = (
            {"value": None, "ci95": None, "num_steps": 0, "reason": why}
            if means is None
            else {**(estimate_json(means.contrast((1,))) or {}), "num_steps": num_steps, "reason": None}
        )
    return found
