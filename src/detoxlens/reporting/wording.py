"""Numbers as words: which side of zero an interval lies on, what could have been detected, lists with "and".

A sentence about fewer than `FEWEST` completions is not written. A difference whose interval holds 0 is "not shown",
with the size that would have been detected with a probability of 80 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.evaluation.intervals import Estimate
from detoxlens.reporting.table import value_at

Json = Mapping[str, Any]
MOST_DIGITS = 6
FEWEST = 30
"""Completions below which no sentence is made."""


def sign(found: Json | None) -> int | None:
    """1: the interval lies above 0; -1: below; 0: it holds 0; None: there is no interval."""
    if not found or found.get("value") is None or found.get("ci95") is None:
        return None
    lo, hi = found["ci95"]
    return (lo > 0) - (hi < 0)


def difference(found: Json, digits: int, unit: str, *, scale: float = 1) -> str:
    """`−30.0 points [−35.0, −25.0]`."""
    while sign(found) and digits < MOST_DIGITS and any(round(scale * end, digits) == 0 for end in found["ci95"] if end):
        digits += 1  # an end that is not 0 is not printed as 0 where the difference is called one
    text = f"{number(scale * found['value'], digits, signed=True)}{unit}"
    if found["ci95"] is None:
        return f"{text}, no interval"
    lo, hi = (number(scale * end, digits, signed=True) for end in found["ci95"])
    return f"{text} [{lo}, {hi}]"


def points(found: Json) -> str:
    """A difference of shares, in percentage points."""
    return difference(found, 1, " points", scale=100)


def could_detect(found: Json, digits: int, unit: str, *, scale: float = 1) -> str:
    """`one of 4.2 points would have been detected`: what stands after a difference that was not shown."""
    size = Estimate(found["value"], tuple(found["ci95"]), 0).detectable
    return f"one of {number(scale * size, digits)}{unit} would have been detected"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def completions(num: int) -> str:
    """`1 completion`, `2 completions`."""
    return f"{num:,} completion{'' if num == 1 else 's'}"


def unless_smaller(delta: Json, unit: str = " points", digits: int = 3) -> str:
    """`; one of 4.2 points would have been detected`; nothing without an interval."""
    if delta["ci95"] is None:
        return ""
    scaled = could_detect(delta, 1, unit, scale=100) if unit == " points" else could_detect(delta, digits, unit)
    return f"; {scaled}"


def percent(toxicity: Json) -> str:
    """The share > .5 of a split: `53.0 %`."""
    return f"{number(100 * toxicity['rate_gt_50'], 1)} %"


def headline_scope(found: Json) -> str:
    """The scope of the headline numbers: `prompt` or `user`."""
    return value_at(found, "attribution", "scope") or "prompt"


def failed_checks(found: Json) -> str | None:
    """`fail 6 of 6 tests by deletion`: what speaks against a variant's attributions; None where nothing does.

    A test on fewer than `FEWEST` sequences speaks for nothing.
    """
    checks = value_at(found, "attribution", "checks")
    deletion = [
        passes
        for of in value_at(checks, "deletion") or ()
        if of["num_sequences"] >= FEWEST
        for name in ("comprehensiveness", "sufficiency")
        if (passes := value_at(of, name, "passes")) is not None
    ]
    gold = [of["passes"] for of in (value_at(checks, "gold") or {}).values() if of.get("passes") is not None]
    failures = [
        f"{passed.count(False)} of {len(passed)} {what}"
        for passed, what in ((deletion, "tests by deletion"), (gold, "gold tests"))
        if False in passed
    ]
    return f"fail {listed(failures)}" if failures else None
