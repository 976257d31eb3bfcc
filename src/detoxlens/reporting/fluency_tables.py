"""The report's tables about language: what detoxification cost, as lists of columns."""

from __future__ import annotations

from detoxlens.reporting.cells import PERCENT, POINTS, interval, plain
from detoxlens.reporting.table import MODEL, VARIANT, Column, Form, Json, Table, table
from detoxlens.reporting.tables import variant_rows


def _measure(name: str, heading: str, form: Form) -> Column:
    """Of `fluency.measures`, with its interval."""
    return Column(heading, ("fluency", "measures", name), form)


FLUENCY = (
    MODEL,
    VARIANT,
    _measure("perplexity", "perplexity", interval(2)),
    _measure("mean_length", "tokens", interval(1)),
    _measure("repetition_2", "repeated 2-grams, %", PERCENT),
    *(_measure(f"distinct_adjusted_{n}", f"distinct-{n}, adjusted", interval(3)) for n in (1, 2, 3)),
    _measure("prompt_mention_rate", "names the prompt, %", PERCENT),
    Column("different per 100", ("fluency", "distinct_per_100_prompts"), plain(0)),
)
FLUENCY_DIFFERENCES = (
    MODEL,
    VARIANT,
    *(
        Column(heading, ("fluency", "measures", name, "delta_vs_it"), form)
        for name, heading, form in (
            ("perplexity", "perplexity", interval(2, signed=True)),
            ("mean_length", "tokens", interval(1, signed=True)),
            ("repetition_2", "repeated 2-grams, points", POINTS),
            ("distinct_adjusted_2", "distinct-2, adjusted", interval(3, signed=True)),
            ("prompt_mention_rate", "names the prompt, points", POINTS),
        )
    ),
)


def fluency_tables(metrics: Json) -> list[Table]:
    """What detoxification cost in language."""
    return [
        table(
            "Fluency",
            "Perplexity under the base model; length in tokens; share of 2-grams that repeat one of the same "
            "completion; distinct n-grams over their expectation (1 is as varied as random draws, whatever the "
            "length: Liu et al. 2022); share that repeats a content word of its prompt; different completions per 100 "
            "prompts. 95 % intervals over prompts.",
            FLUENCY,
            variant_rows(metrics),
        ),
        table(
            "Fluency: difference to base",
            "On the same prompts, with 95 % intervals.",
            FLUENCY_DIFFERENCES,
            variant_rows(metrics, base=False),
        ),
    ]
