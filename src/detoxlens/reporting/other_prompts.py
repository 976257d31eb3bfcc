"""Is the model effect one on hostile prompts, or on all? A difference in differences: primary split minus another.

    primary  the model effect on the primary split's prompts         (hostile)
    other    the same on the prompts of another split alone          (polite)
    difference = primary - other

All on the same steps, with the same weights for every variant; the two sets of prompts are resampled together. A split
takes part where prompts of it that are not the primary's are attributed (`attribution.filters`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import EFFECTS, StepTable, common_support, shared_prompts, step_means
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.cells import interval
from detoxlens.reporting.effects import Cells, cells, quad_of, step_table
from detoxlens.reporting.study import Study, VariantTables
from detoxlens.reporting.table import MODEL, VARIANT, Column, Row, Table, table
from detoxlens.reporting.traces import ANY_METHOD

Json = dict[str, Any]
MEASURES = ("prompt_entropy_bits", "prompt_dependence_excess_bits", "prompt_kl_bits")
"""Those of which a model effect is shown; the last needs no attribution."""
SIGNED = interval(3, signed=True)
PARTS = ("primary", "other")
WEIGHTS = {"primary": (1, 0), "other": (0, 1), "difference": (1, -1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One measure of every variant on two sets of prompts."""

    tables: Mapping[str, Mapping[tuple[str, int], StepTable]]
    """By variant that has enough, by part and place in `EFFECTS`."""
    num_steps: int
    reasons: Mapping[str, str]


def compared_prompts(
    study: Study, variants: Mapping[str, VariantTables], config: ReportConfig
) -> Iterator[tuple[str, str, Compared]]:
    """(split, measure, what is compared) of one model."""
    primary = cells(variants, config, part="test")
    of_primary = {
        prompt
        for t in variants.values()
        for prompt in t.completions.where(t.mask("test", config.primary_split)).column("prompt_id").present()
    }
    others = [variant for variant in variants if variant != "it"]
    for split in study.splits:
        theirs = cells(variants, config.model_copy(update={"primary_split": split}), part="test")
        other = {cell: [t for t in of if t.key[0] not in of_primary] for cell, of in theirs.items()}
        if not any(other.values()):
            continue
        for measure in MEASURES:
            scope = ANY_METHOD if measure == "prompt_kl_bits" else study.scope
            yield split, measure, _of_measure(others, (primary, other), scope, measure, config)


def other_prompts(study: Study, variants: Mapping[str, VariantTables], config: ReportConfig) -> dict[str, Json]:
    """{variant: {split: {measure: {primary, other, difference, num_steps, num_prompts, reason}}}} of one model.

    `primary`, `other` and `difference` are model effects with intervals, null where `reason` says why; `num_prompts` is
    the number of (primary, other) prompts.
    """
    found: dict[str, Json] = {variant: {} for variant in variants if variant != "it"}
    for split, measure, of in compared_prompts(study, variants, config):
        for variant in found:
            found[variant].setdefault(split, {})[measure] = (
                _json(of.tables[variant], of.num_steps, config)
                if variant in of.tables
                else dict.fromkeys(WEIGHTS) | {"num_steps": 0, "num_prompts": [0, 0], "reason": of.reasons[variant]}
            )
    return found


def other_prompts_tables(others: Sequence[Row]) -> list[Table]:
    """A difference in differences; none where only the primary split's prompts were attributed."""
    rows = [
        dataclasses.replace(row, found=measures, key=split)
        for row in others
        for split, measures in row.found["attribution"].get("other_prompts", {}).items()
    ]
    if not rows:
        return []
    found = table(
        "Is it an effect on these prompts, or on all?",
        "Model effect on the primary split's prompts, on those of another split, and the first minus the second, with "
        "95 % intervals: the same steps for both. A training that changes how any prompt is used shows no difference.",
        [
            MODEL,
            VARIANT,
            Column("others", lambda row: row.key, is_name=True),
            *(
                Column(heading, ("prompt_entropy_bits", which), SIGNED)
                for which, heading in (
                    ("primary", "prompt entropy, bits"),
                    ("other", "on the others"),
                    ("difference", "difference"),
                )
            ),
            Column(
                "difference in dependence beyond uniform",
                ("prompt_dependence_excess_bits", "difference"),
                SIGNED,
            ),
            Column("in KL by the user's text", ("prompt_kl_bits", "difference"), SIGNED),
            Column("prompts", ("prompt_entropy_bits", "num_prompts"), "{0[0]}, {0[1]}".format),
            Column("steps", ("prompt_entropy_bits", "num_steps")),
        ],
        rows,
    )
    return [found]


def _of_measure(
    variants: list[str], parts: tuple[Cells, Cells], scope: str, measure: str, config: ReportConfig
) -> Compared:
    """Of every variant, on the steps that all of them have in both parts."""
    minimum = config.min_sequences_per_step
    compared: dict[str, dict[tuple[str, int], StepTable]] = {}
    reasons: dict[str, str] = {}
    for variant in variants:
        tables: dict[tuple[str, int], StepTable] = {}
        for name, of in zip(PARTS, parts, strict=True):
            four = [step_table(of.get(cell, ()), scope, measure) for cell in quad_of(variant)]
            shared = shared_prompts(four)
            tables |= {(name, i): table.of(shared) for i, table in enumerate(four)}
        own = common_support(tables, minimum)
        if own.num_steps:
            compared[variant] = tables
        else:
            part = own.limited_by[0]
            num = len(set(tables[own.limited_by].prompts))
            reasons[variant] = f"{num} prompts of the {part} split, fewer than report.min_sequences_per_step={minimum}"
    together = {(variant, key): table for variant, tables in compared.items() for key, table in tables.items()}
    num_steps = common_support(together, minimum).num_steps if together else 0
    return Compared(tables=compared, num_steps=num_steps, reasons=reasons)


def _json(tables: Mapping[tuple[str, int], StepTable], num_steps: int, config: ReportConfig) -> Json:
    means = step_means(list(tables.values()), num_steps, config.bootstrap)
    assert means is not None, "a table on its support has a value at every step"
    effect = EFFECTS["model_effect"]
    prompts = {name: {p for (part, _), of in tables.items() if part == name for p in of.prompts} for name in PARTS}
    return {
        **{
            name: estimate_json(means.contrast([sign * weight for sign in signs for weight in effect]))
            for name, signs in WEIGHTS.items()
        },
        "num_steps": num_steps,
        "num_prompts": [len(prompts[name]) for name in PARTS],
        "reason": None,
    }
