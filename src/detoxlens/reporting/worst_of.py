"""Tables about the worst of n completions of a prompt, where a run has several (`generation.num_samples`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.reporting.tables import DASH, Table, estimate

Json = Mapping[str, Any]


def worst_of_tables(metrics: Json, splits: Sequence[str]) -> list[Table]:
    """Expected maximum and toxicity probability by n, their differences to `it`, and their prompts; none for one."""
    if not any(_by_n(found) for _, _, found in _variants(metrics)):
        return []
    columns = (*splits, "val")
    return [
        Table(
            title="Expected maximum toxicity",
            caption="Toxicity, 0 to 1, of the most toxic of n completions of a prompt: mean ± standard deviation over "
            "prompts, with the mean's 95 % interval (Gehman et al. 2020).",
            header=("model", "variant", "worst of", *columns),
            rows=_rows_by_n(metrics, columns, _expected_max),
        ),
        Table(
            title="Prompts with a toxic completion",
            caption="Share of prompts, in %, of whose n completions at least one has toxicity > .5, with its 95 % "
            "interval.",
            header=("model", "variant", "worst of", *columns),
            rows=_rows_by_n(metrics, columns, lambda found: estimate(found["p_any_toxic"], 1, scale=100)),
        ),
        Table(
            title="Worst of all completions: difference to `it`",
            caption="At the largest n, on the same prompts, with 95 % intervals: the expected maximum, then prompts "
            "with a toxic completion in percentage points. Below zero is less toxic.",
            header=("model", "variant", "measure", *columns),
            rows=tuple(
                (model, variant, measure, *(_delta(_at_k(found, column), name, digits, scale) for column in columns))
                for model, variant, found in _variants(metrics)
                if variant != "it"
                for measure, name, digits, scale in (
                    ("expected maximum", "expected_max", 3, 1),
                    ("any toxic", "p_any_toxic", 1, 100),
                )
            ),
        ),
        Table(
            title="Prompts behind them",
            caption="Prompts that count / prompts left out at the largest n because some of their completions are "
            "empty, failed or missing: the worst of fewer would look milder than it is.",
            header=("model", "variant", *columns),
            rows=tuple(
                (model, variant, *(_counts(_at_k(found, column)) for column in columns))
                for model, variant, found in _variants(metrics)
            ),
        ),
    ]


def _variants(metrics: Json) -> Iterator[tuple[str, str, Json]]:
    """(model, variant, its toxicity by split)."""
    for model, variants in metrics.items():
        for variant, found in variants.items():
            yield model, variant, found["toxicity"]


def _by_n(toxicity: Json) -> list[str]:
    """Every n of any split, rising."""
    return sorted({n for found in toxicity.values() for n in found.get("worst_of", {})}, key=int)


def _rows_by_n(metrics: Json, columns: Sequence[str], cell: Callable[[Json], str]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            model,
            variant,
            n,
            *(cell(at) if (at := found[column].get("worst_of", {}).get(n)) else DASH for column in columns),
        )
        for model, variant, found in _variants(metrics)
        for n in _by_n(found)
    )


def _at_k(toxicity: Json, column: str) -> Json | None:
    """At the largest n that the split has."""
    by_n = toxicity[column].get("worst_of")
    return by_n[max(by_n, key=int)] if by_n else None


def _expected_max(found: Json) -> str:
    """`0.61 ± 0.25 [0.58, 0.63]`."""
    maximum = found["expected_max"]
    if maximum is None or maximum["sd"] is None:
        return estimate(maximum, 2)
    value, *interval = estimate(maximum, 2).split(" ", 1)
    return " ".join([value, "±", number(maximum["sd"], 2), *interval])


def _delta(found: Json | None, name: str, digits: int, scale: int) -> str:
    return estimate(found[name]["delta_vs_it"], digits, scale=scale, signed=True) if found and found[name] else DASH


def _counts(found: Json | None) -> str:
    return f"{found['num_prompts']} / {found['num_left_out']}" if found else DASH
