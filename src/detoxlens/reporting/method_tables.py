"""The report's tables about methods' use of the prompt: over all seeds of a method, and method against method."""

from __future__ import annotations

from collections.abc import Sequence

from detoxlens.reporting.cells import interval
from detoxlens.reporting.table import MODEL, Column, Json, Row, Table, key_column, table
from detoxlens.reporting.tables import pair_rows
from detoxlens.reporting.traces import ANY_METHOD

ENTROPY, DEPENDENCE, KL = "prompt_entropy_bits", "prompt_dependence_excess_bits", "prompt_kl_bits"
SIGNED = interval(3, signed=True)
BY_SCOPE = (
    ("entropy, with the template", "prompt", ENTROPY),
    ("entropy, user's text alone", "user", ENTROPY),
    ("dependence, with the template", "prompt", DEPENDENCE),
    ("dependence, user's text alone", "user", DEPENDENCE),
    ("KL by the user's text", ANY_METHOD, KL),
)
"""Heading, scope, measure."""


def method_tables(others: Sequence[Row]) -> list[Table]:
    """Model effects over all seeds of a method; none where every method has one."""
    rows = [row for row in others if "method" in row.found]
    if not rows:
        return []
    at = ("method", "attribution", "effects")
    found = table(
        "Model effect of a method: all of its seeds",
        "Mean over seeds of the model effect (the mean over both texts), in bits, on the prompts that all of its seeds "
        "have. The 95 % intervals hold seeds and prompts; ± is the standard deviation between seeds. Dependence: "
        "beyond uniform.",
        [
            MODEL,
            Column("method", lambda row: row.variant, is_name=True),
            Column("seeds", ("method", "variants"), lambda seeds: str(len(seeds))),
            *(Column(name, (*at, scope, measure, "model_effect"), _with_spread) for name, scope, measure in BY_SCOPE),
            Column("prompts", (*at, "prompt", ENTROPY, "num_prompts")),
            Column("steps", (*at, "prompt", ENTROPY, "num_steps")),
        ],
        rows,
    )
    return [found]


def pair_tables(metrics: Json, scope: str) -> list[Table]:
    """One method against another; none where none are compared."""
    if not (rows := pair_rows(metrics)):
        return []
    headline = [(name, of, measure) for name, of, measure in BY_SCOPE if of in (scope, "user") and measure != KL]
    found = table(
        "Method against method: the use of the prompt",
        "First minus second, in bits, on the same prompts (several seeds: their means), with 95 % intervals. On base's "
        "text, which both read: prompt entropy, dependence beyond uniform, and the Jensen–Shannon divergence of their "
        "attributions from base's. Then the difference of their model effects, which are means over base's text and "
        "the variant's own.",
        [
            MODEL,
            key_column("methods"),
            *(
                Column(f"on base's text: {name}", ("attribution", "on_base_text", measure), SIGNED)
                for name, measure in (
                    ("entropy", ENTROPY),
                    ("dependence", DEPENDENCE),
                    ("Jensen–Shannon", "jensen_shannon_bits"),
                )
            ),
            *(
                Column(f"effect: {name}", ("attribution", "effects", of, measure, "model_effect"), SIGNED)
                for name, of, measure in headline
            ),
        ],
        rows,
    )
    return [found]


def _with_spread(found: Json) -> str:
    return f"{SIGNED(found)} ± {found['sd_between_seeds']:.3f}"
