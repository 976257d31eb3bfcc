"""The entry `rise` of metrics.json: does the prompt entropy rise after the first tokens, and differently from base?

    {variant: {scope: {level, model_effect, text_effect, total, num_prompts, num_left_out, num_steps, reason}}}

`level` is the variant reading its own text, on prompts to which base and the variant both wrote 8 tokens or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from detoxlens.evaluation.rise import LATER, rises
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.effects import AVERAGED, Quads, cells, quads_of, step_table, two_by_two
from detoxlens.reporting.study import VariantTables

Json = dict[str, Any]
MEASURE = "prompt_entropy_bits"


def rise(variants: Mapping[str, VariantTables], config: ReportConfig, *, scopes: Iterable[str]) -> dict[str, Json]:
    """Of every variant of a model, on the test prompts of the primary split."""
    found: dict[str, Json] = {variant: {} for variant in variants}
    for scope, quads in rising(variants, config, scopes=scopes):
        for variant, effect in two_by_two(variants, quads, config, AVERAGED).items():
            found[variant][scope] = with_steps(effect)
    return found


def rising(
    variants: Mapping[str, VariantTables], config: ReportConfig, *, scopes: Iterable[str]
) -> Iterator[tuple[str, Quads]]:
    """(scope, each completion's rise)."""
    traces = cells(variants, config, part="test")
    for scope in scopes:
        tables = {cell: rises(step_table(of, scope, MEASURE)) for cell, of in traces.items()}
        yield scope, quads_of(variants, tables, config, AVERAGED, needed=f"{LATER[1]} steps with a value")


def with_steps(effect: Json) -> Json:
    """Its one column is made of 8 steps."""
    return effect | ({"num_steps": LATER[1]} if effect["reason"] is None else {})
