"""Formats of numbers in tables and sentences: a real minus sign, no negative zero, the interval beside the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.reporting.table import DASH, Form

Json = Mapping[str, Any]


def estimate(found: Json | None, digits: int, *, scale: float = 1, signed: bool = False) -> str:
    """`53.0 [48.1, 57.9]` of {value, ci95}; a dash where nothing was measured."""
    return with_interval(found["value"], found["ci95"], digits, scale=scale, signed=signed) if found else DASH


def with_interval(
    value: float | None, ci95: Sequence[float] | None, digits: int, *, scale: float = 1, signed: bool = False
) -> str:
    """`53.0 [48.1, 57.9]`; the value alone without an interval; a dash where nothing was measured."""
    if value is None:
        return DASH
    text = number(scale * value, digits, signed=signed)
    if ci95 is None:
        return text
    return f"{text} [{', '.join(number(scale * end, digits, signed=signed) for end in ci95)}]"


def interval(digits: int, *, scale: float = 1, signed: bool = False) -> Form:
    """Format of {value, ci95}."""
    return lambda found: estimate(found, digits, scale=scale, signed=signed)


def plain(digits: int, *, scale: float = 1, signed: bool = False) -> Form:
    """Format of a number."""
    return lambda value: number(scale * value, digits, signed=signed)


POINTS = interval(1, scale=100, signed=True)
"""A difference of shares, in percentage points."""
PERCENT = interval(1, scale=100)
"""A share, in %."""


def rate(toxicity: Json) -> str:
    """The share > .5 of a split, in %, with its interval."""
    return with_interval(toxicity["rate_gt_50"], toxicity["ci95"], 1, scale=100)


def counts(toxicity: Json) -> str:
    """`400 / 0 / 0`: scored, empty, failed."""
    return " / ".join(str(toxicity[f"num_{what}"]) for what in ("scored", "empty", "failed"))
