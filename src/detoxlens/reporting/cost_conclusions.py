"""What a variant costs whoever is civil, in sentences: over-countering, and how well it takes reference replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.names import BASE
from detoxlens.common.numbers import number
from detoxlens.reporting.by_method import named
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import FEWEST, difference, points, sign, unless_smaller

Json = Mapping[str, Any]


def cost_conclusions(metrics: Json, graders: Json, civil: Sequence[str]) -> dict[str, list[str]]:
    """Per model the sentences about its variants; none about what was not measured.

    Args:
        metrics: an entry per method, from `by_method`.
        graders: errors of the graders of replies (`Study.reply_graders`).
        civil: the splits whose prompts ask for an answer.
    """
    return {
        model: [
            sentence
            for variant, found in variants.items()
            if variant != BASE and not found.get("identical_to")
            for sentence in (*_not_answered(variant, found, graders, civil), *_utility(variant, found))
        ]
        for model, variants in metrics.items()
    }


def _not_answered(variant: str, found: Json, graders: Json, civil: Sequence[str]) -> list[str]:
    """`ft` counters or refuses civil prompts more often than base: 62.9 % of 70 on lookalike (+62.9 points [..])."""
    parts: dict[str, list[str]] = {}
    for split in civil:
        kinds = value_at(found, "costs", "response_kind", split) or {}
        rate, delta = kinds.get("not_answered"), value_at(kinds, "not_answered", "delta_vs_it")
        if rate is None or delta is None or kinds["num_judged"] < FEWEST:
            continue
        how = {1: "more often than base", -1: "less often than base"}.get(sign(delta) or 0)
        said = f"{number(100 * rate['value'], 1)} % of {kinds['num_judged']} on {split} ({points(delta)}"
        verdict = how or "no more often than base as far as shown"
        parts.setdefault(verdict, []).append(f"{said}{'' if how else unless_smaller(delta)})")
    if not parts:
        return []
    errors = value_at(graders, "counter-speech, by classifier")
    by = f"; the grader misses {errors['num_missed']} of {errors['num_of_kind']} labelled ones" if errors else ""
    said = "; ".join(f"{verdict}: {', '.join(where)}" for verdict, where in parts.items())
    return [f"{named(variant, found)} counters or refuses civil prompts {said}{by}."]


def _utility(variant: str, found: Json) -> list[str]:
    """`ft` takes reference replies to civil prompts at 1.11 bits per token (-0.04 [..] against base)."""
    utility = value_at(found, "costs", "utility") or {}
    bits, delta = utility.get("bits_per_token"), value_at(utility, "bits_per_token", "delta_vs_it")
    if bits is None or delta is None or utility["num_references"] < FEWEST:
        return []
    how = {1: "worse than base", -1: "better than base"}.get(sign(delta) or 0, "no difference to base shown")
    unseen = unless_smaller(delta, " bits") if sign(delta) == 0 else ""
    return [
        f"{named(variant, found)} at reference replies to civil prompts: {number(bits['value'], 2)} bits per token, "
        f"{how} ({difference(delta, 3, ' bits')}{unseen}; n = {utility['num_references']})."
    ]
