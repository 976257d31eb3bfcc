"""One method minus another, whichever way round metrics.json has it. Of entries per method, from `by_method`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.reporting.table import value_at

Json = Mapping[str, Any]


def between(variants: Json, one: str, other: str, *path: str) -> Json | None:
    """One minus other at `path` of their pair, such as `("toxicity", "p50", "rate_gt_50")`; None where there is none.

    Args:
        variants: of one model.
        one: a variant, the key of an entry.
        other: likewise.
        path: within the pair.
    """
    return _either_way(variants, one, other, ("pairs",), path)


def at_equal_toxicity(variants: Json, one: str, other: str, level: str) -> Json | None:
    """{quantity: one minus other} where both have the share `level` of base's toxicity, in percent; None without it."""
    return _either_way(variants, one, other, ("dose", "at_equal_toxicity"), (level,))


def _either_way(variants: Json, one: str, other: str, place: tuple[str, ...], path: tuple[str, ...]) -> Json | None:
    found = value_at(variants, one, *place, _method(variants, other), *path)
    return found if found is not None else _turned(value_at(variants, other, *place, _method(variants, one), *path))


def _method(variants: Json, variant: str) -> str:
    """The name under which its method stands in the pairs of others."""
    return value_at(variants, variant, "group") or variant


def _turned(found: Json | None) -> Json | None:
    """The same differences with the other sign."""
    if not isinstance(found, Mapping):
        return found
    if "value" not in found:
        return {key: _turned(value) for key, value in found.items()}
    if found["value"] is None:
        return found
    return {**found, "value": -found["value"], "ci95": found["ci95"] and [-end for end in reversed(found["ci95"])]}
