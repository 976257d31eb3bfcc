"""The report's tables about adapters of several strengths; none where no variant was interpolated."""

from __future__ import annotations

from detoxlens.common.names import shown_name
from detoxlens.common.numbers import number
from detoxlens.reporting.cells import PERCENT, interval
from detoxlens.reporting.table import MODEL, VARIANT, Column, Json, Row, Table, key_column, table
from detoxlens.reporting.tables import variant_rows

HEADINGS = {
    "prompt_entropy_bits": "prompt entropy, bits",
    "prompt_dependence_excess_bits": "dependence beyond uniform, bits",
    "jensen_shannon_bits": "Jensen–Shannon, bits",
    "perplexity": "perplexity",
}
"""Quantity of a path -> heading."""


def dose_tables(metrics: Json) -> list[Table]:
    """Methods at equal toxicity, then each variant at each strength."""
    having = [row for row in variant_rows(metrics) if "dose" in row.found]
    if not having:
        return []
    equal = [
        Row(model=row.model, variant=row.variant, found=found, key=f"{shown_name(row.variant)} − {shown_name(other)}")
        for row in having
        for other, levels in row.found["dose"].get("at_equal_toxicity", {}).items()
        for found in ({"level": level, **of} for level, of in levels.items())
    ]
    strengths = [
        Row(model=row.model, variant=row.variant, found=found | {"reason": row.found["dose"]["reason"]}, key=alpha)
        for row in having
        for alpha, found in row.found["dose"]["strengths"].items()
    ]
    found = [
        table(
            "Methods at equal toxicity",
            "First minus second where the toxicity of both has fallen to the same share of base's: the vertical "
            "distance of their paths, with 95 % intervals over prompts drawn for both at once. Each adapter is scaled; "
            "between two strengths all is taken as linear, a level is read where the path first falls to it, nothing "
            "is extrapolated. Entropy and dependence: model effects on the same text. A strength per training; with "
            "several seeds the intervals hold seeds and prompts.",
            [
                MODEL,
                key_column("methods"),
                Column("toxicity", ("level",), "{} % of base’s".format),
                Column("strengths", ("strengths",), _strengths),
                *(Column(name, (quantity,), interval(3, signed=True)) for quantity, name in HEADINGS.items()),
            ],
            equal,
        ),
        table(
            "Adapters at several strengths",
            "Strength 0 is base, 1 the variant as trained; toxic completions in %, model effects and divergence from "
            "base on the same text, perplexity under base, with 95 % intervals.",
            [
                MODEL,
                VARIANT,
                key_column("strength"),
                Column("toxic, %", ("toxicity",), PERCENT),
                *(Column(name, (quantity,), interval(3)) for quantity, name in HEADINGS.items()),
            ],
            strengths,
        ),
    ]
    return [t for t in found if t.rows]


def _strengths(found: Json) -> str:
    return ", ".join("–" if value is None else number(value, 2) for value in found.values())
