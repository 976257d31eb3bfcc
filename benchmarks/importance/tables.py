"""`python -m benchmarks.importance.tables` prints the tables of docs/importance.md, from results/importance.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.importance.records import NAME
from benchmarks.script import RESULTS, run
from detoxlens.evaluation.multiplicity import holm

ARMS = {
    "plain": "plain (weight 0)",
    "lower": "lowered (+{weight})",
    "raise": "raised (-{weight})",
    "placebo": "placebo (+{weight}, shuffled)",
}
PAIRS = {
    "lower - plain": "lowered - plain",
    "raise - plain": "raised - plain",
    "placebo - plain": "placebo - plain",
    "lower - placebo": "lowered - placebo",
    "raise - placebo": "raised - placebo",
}
QUESTIONS = ("toxicity_at_equal_kl", "mean_toxicity_along_training")
"""Improve, accelerate: both, of all pairs of a table, are one family of Holm's."""


def tables_of(results: Mapping[str, Any]) -> Iterator[str]:
    """Line by line, per method and per kind and weight: a title, the arms, the differences; of two seeds or more."""
    for method, known in results.items():
        for name, found in known["effects"].items():
            if min(found["num_seeds"].values()) < 2:
                continue
            yield f"{method}, {name}:"
            yield ""
            yield from _arms(found, name.split()[-1])
            yield ""
            yield from _differences(found)
            yield ""


def _arms(found: Mapping[str, Any], weight: str) -> Iterator[str]:
    kl = _number(found["common_kl_nats_per_sequence"], 2)
    yield (
        f"| arm | seeds | toxicity at KL {kl} | mean toxicity along training | half of base's after | at the end | "
        "KL at the end, nats per sequence | base perplexity at the end | the quantity at the end |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for arm, title in ARMS.items():
        num, never, mean = found["num_seeds"][arm], found["never_half"][arm], found["means"][arm]
        half = "never" if never == num else f"{mean['steps_to_half']:.1f} steps"
        yield _row(
            title.format(weight=weight),
            str(num),
            *(_number(mean[q], 3) for q in QUESTIONS),
            f"{half}, {num - never} of {num}",
            _number(mean["toxicity_at_end"], 3),
            _number(mean["kl_nats_per_sequence_at_end"], 2),
            _number(mean["base_perplexity_at_end"], 2),
            _number(mean["quantity_at_end"], 3),
        )


def _differences(found: Mapping[str, Any]) -> Iterator[str]:
    kl = _number(found["common_kl_nats_per_sequence"], 2)
    yield (
        f"| difference | toxicity at KL {kl} | mean toxicity along training | base perplexity at KL {kl} | "
        "the quantity at the end |"
    )
    yield "|---|--:|--:|--:|--:|"
    every = found["differences"]
    adjusted = holm(
        {f"{pair} {q}": every[pair][q]["p"] for pair in PAIRS for q in QUESTIONS if every[pair][q]["p"] is not None}
    )
    for pair, title in PAIRS.items():
        cells = [
            _interval(every[pair][q], bold=adjusted.get(f"{pair} {q}", 1.0) < 0.05)
            for q in (*QUESTIONS, "base_perplexity_at_equal_kl", "quantity_at_end")
        ]
        yield _row(title, *cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(difference: Mapping[str, Any], *, bold: bool) -> str:
    if difference["value"] is None:
        return ""
    value, low, high = (_number(difference[name], 3, sign="+") for name in ("value", "lo", "hi"))
    return f"**{value}** ({low} to {high})" if bold else f"{value} ({low} to {high})"


def _number(value: float | None, digits: int, *, sign: str = "") -> str:
    """.482, +.007, 1.50; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:{sign}.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}.{digits}f}"


def main() -> None:
    """Print the tables."""
    print("\n".join(tables_of(json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8")))))


if __name__ == "__main__":
    run(main)
