"""Toxic against other completions: as a user meets them (`groups`), and on the same text and steps (`contrast`)."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from detoxlens.attribution.entropy import MEASURES
from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import StepTable, common_support, step_means
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.effects import step_table
from detoxlens.reporting.own_text import mean, table
from detoxlens.reporting.study import Key, Trace

Json = dict[str, Any]
CONTRASTS = {"toxic": (1, 0), "other": (0, 1), "toxic_minus_other": (1, -1)}
CHANGE = {"change_from_it": (1, -1, -1, 1)}
Groups = tuple[Container[Key], Container[Key]]
"""Toxic and other completions."""


def groups(own: Sequence[Trace], by: Groups, config: ReportConfig, *, scope: str) -> Json:
    """Means over a completion's tokens, then over the completions of each group, and their difference."""
    parts = {name: [t for t in own if t.key in keys] for name, keys in zip(("toxic", "other"), by, strict=True)}
    tables = {
        name: {measure: table(part, [t.values[scope][measure] for t in part]) for measure in MEASURES}
        for name, part in parts.items()
    }
    found: Json = {
        name: {measure: mean(of, config) for measure, of in measures.items()} | {"num_sequences": len(parts[name])}
        for name, measures in tables.items()
    }
    differences = {m: step_means([of[m] for of in tables.values()], 1, config.bootstrap) for m in MEASURES}
    found["toxic_minus_other"] = {m: of and estimate_json(of.contrast((1, -1))) for m, of in differences.items()}
    return found


def contrast(
    read: Sequence[Trace], it: Sequence[Trace] | None, by: Groups, config: ReportConfig, *, scope: str
) -> dict[str, Json]:
    """{measure: toxic, other and their difference}, position-standardised on the steps that both groups have.

    Args:
        read: a variant reading some completions.
        it: `it` reading the same ones, to compare the difference with; None where there is nothing to compare.
        by: the toxic and the other of these completions.
        config: bootstrap, and how many completions a step needs.
        scope: the headline's.
    """
    found = {}
    for measure in MEASURES:
        tables = side_tables([of for of in (read, it) if of is not None], by, scope, measure)
        num_toxic, num_other = (len(tables[side].prompts) for side in (0, 1))
        support = common_support(tables, config.min_sequences_per_step)
        means = step_means(list(tables.values()), support.num_steps, config.bootstrap)
        wanted = CONTRASTS if it is None else CONTRASTS | CHANGE
        padding = (0,) * (len(tables) - 2)
        found[measure] = {
            **{
                name: means and estimate_json(means.contrast((*weights, *padding)[: len(tables)]))
                for name, weights in wanted.items()
            },
            "num_toxic": num_toxic,
            "num_other": num_other,
            "num_steps": support.num_steps,
            "reason": None
            if means
            else f"{num_toxic} toxic and {num_other} other completions: report.min_sequences_per_step="
            f"{config.min_sequences_per_step} of each are needed at the first step",
        }
    return found


def side_tables(readings: Sequence[Sequence[Trace]], by: Groups, scope: str, measure: str) -> dict[int, StepTable]:
    """The toxic and the other completions of each reading, in the order of the weights of `CONTRASTS` and `CHANGE`."""
    sides = [[t for t in of if t.key in keys] for of in readings for keys in by]
    return {number: step_table(side, scope, measure) for number, side in enumerate(sides)}
