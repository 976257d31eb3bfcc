"""Effect of the rule for completions without a score (params `toxicity.missing`) on rates and differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.names import BASE, mention
from detoxlens.common.numbers import number
from detoxlens.evaluation.toxicity import Missing

Json = Mapping[str, Any]
OTHER: Mapping[Missing, Missing] = {"exclude": "non_toxic", "non_toxic": "exclude"}
TREATED: Mapping[Missing, str] = {"exclude": "left out", "non_toxic": "counted as not toxic"}


def rule_effect(split: str, numbers: Json, by_other: Json, *, missing: Missing, reference: str = BASE) -> str | None:
    """How rates and differences move from one rule to the other; None where every completion has a score.

    Args:
        split: its name.
        numbers: variant -> toxicity by the rule `missing`.
        by_other: the same by the other rule.
        missing: a rule.
        reference: the variant with which the others are compared.
    """
    num_empty, num_failed = (sum(n[key] for n in numbers.values()) for key in ("num_empty", "num_failed"))
    if not num_empty + num_failed:
        return None
    parts = []
    for variant, ours in numbers.items():
        theirs = by_other[variant]
        moved = f"{mention(variant)} {_rate(ours)} -> {_rate(theirs)}"
        if variant != reference:
            before, after = _verdict(ours, reference), _verdict(theirs, reference)
            moved += f", still {after}" if before == after else f", {after} instead of {before}: the conclusion changes"
        parts.append(moved)
    return (
        f"{split}: {num_empty + num_failed} completions have no score ({num_empty} empty, {num_failed} failed) and are "
        f"{TREATED[missing]}. If they were {TREATED[OTHER[missing]]}: {'; '.join(parts)}."
    )


def _rate(numbers: Json) -> str:
    return "no rate" if numbers["rate_gt_50"] is None else f"{number(100 * numbers['rate_gt_50'], 1)} %"


def _verdict(numbers: Json, reference: str) -> str:
    delta = numbers["delta_vs_it"]
    if delta is None or delta["ci95"] is None:
        return f"not comparable with {mention(reference)}"
    lo, hi = delta["ci95"]
    if hi < 0:
        return f"less toxic than {mention(reference)}"
    return f"more toxic than {mention(reference)}" if lo > 0 else f"not shown to differ from {mention(reference)}"
