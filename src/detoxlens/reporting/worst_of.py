"""Tables about the worst of n completions of a prompt, where a run has several (`generation.num_samples`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.reporting.cells import PERCENT, POINTS, estimate, interval
from detoxlens.reporting.table import MODEL, VARIANT, Column, Form, Json, Row, Table, key_column, table, value_at
from detoxlens.reporting.tables import variant_rows


def worst_of_tables(metrics: Json, splits: Sequence[str]) -> list[Table]:
    """The worst of n completions of a prompt (`generation.num_samples`); none where there is one."""
    columns = (*splits, "val")
    by_n = [
        Row(model=row.model, variant=row.variant, found=row.found["toxicity"], key=n)
        for row in variant_rows(metrics)
        for n in sorted({n for t in row.found["toxicity"].values() for n in t.get("worst_of", {})}, key=int)
    ]
    if not by_n:
        return []

    def at_largest(row: Row, split: str, *keys: str) -> Any:
        by_n = row.found["toxicity"][split].get("worst_of")
        return value_at(by_n, max(by_n, key=int), *keys) if by_n else None

    def of_n(*keys: str, form: Form) -> list[Column]:
        return [
            Column(split, lambda row, s=split: value_at(row.found, s, "worst_of", row.key, *keys), form)
            for split in columns
        ]

    differences = {"expected maximum": ("expected_max", interval(3, signed=True)), "any toxic": ("p_any_toxic", POINTS)}
    return [
        table(
            "Expected maximum toxicity",
            "Toxicity, 0 to 1, of the most toxic of n completions of a prompt: mean ± standard deviation over prompts, "
            "with the mean's 95 % interval (Gehman et al. 2020).",
            [MODEL, VARIANT, key_column("worst of"), *of_n("expected_max", form=_expected_max)],
            by_n,
        ),
        table(
            "Prompts with a toxic completion",
            "Share of prompts, in %, of whose n completions at least one has toxicity > .5, with its 95 % interval.",
            [MODEL, VARIANT, key_column("worst of"), *of_n("p_any_toxic", form=PERCENT)],
            by_n,
        ),
        table(
            "Worst of all completions: difference to base",
            "At the largest n, on the same prompts, with 95 % intervals: the expected maximum, then prompts with a "
            "toxic completion in percentage points. Below zero is less toxic.",
            [
                MODEL,
                VARIANT,
                key_column("measure"),
                *(
                    Column(
                        split,
                        lambda row, s=split: (
                            None
                            if (delta := at_largest(row, s, differences[row.key][0], "delta_vs_it")) is None
                            else differences[row.key][1](delta)
                        ),
                    )
                    for split in columns
                ),
            ],
            [
                Row(model=row.model, variant=row.variant, found=row.found, key=measure)
                for row in variant_rows(metrics, base=False)
                for measure in differences
            ],
        ),
        table(
            "Prompts behind them",
            "Prompts that count / prompts left out at the largest n because some of their completions are empty, "
            "failed or missing: the worst of fewer would look milder than it is.",
            [
                MODEL,
                VARIANT,
                *(
                    Column(
                        split,
                        lambda row, s=split: at_largest(row, s),
                        "{0[num_prompts]} / {0[num_left_out]}".format,
                    )
                    for split in columns
                ),
            ],
            variant_rows(metrics),
        ),
    ]


def _expected_max(maximum: Json) -> str:
    """`0.61 ± 0.25 [0.58, 0.63]`."""
    if maximum["sd"] is None:
        return estimate(maximum, 2)
    value, *ends = estimate(maximum, 2).split(" ", 1)
    return " ".join([value, "±", number(maximum["sd"], 2), *ends])
