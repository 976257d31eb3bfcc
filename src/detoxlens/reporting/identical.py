"""Variants that answer exactly as another one does: a training that changed nothing. They get no intervals.

A difference between two equal columns of answers is 0 whatever the prompts, so an interval around it would be about
nothing. `identical_to` in metrics.json names the other variant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from detoxlens.reporting.study import VariantTables

Json = dict[str, Any]
DIFFERENCES = ("delta_vs_it", "change_from_it", "model_effect", "text_effect", "total")
"""Keys under which differences lie, and what begins with them."""


def twins(variants: Mapping[str, VariantTables]) -> dict[str, str]:
    """Variant -> the first one before it with the same completions, token for token, where there is one."""
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    for variant, tables in variants.items():
        if not len(tables.completions):
            continue
        said = _digest(tables)
        if said in seen:
            found[variant] = seen[said]
        else:
            seen[said] = variant
    return found


def _digest(tables: VariantTables) -> str:
    """Of whose answers they are, and of their tokens."""
    digest = hashlib.sha256()
    for batch in tables.completions.batches("prompt_id", "sample_index", "completion_ids"):
        ids = batch.column("completion_ids")
        digest.update("\n".join(batch.column("prompt_id").to_pylist()).encode())
        for numbers in (batch.column("sample_index"), ids.value_lengths(), ids.flatten()):
            digest.update(numbers.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    return digest.hexdigest()


def mark_twins(variants: Json, of: Mapping[str, str]) -> Json:
    """A model's part of metrics.json with `identical_to`, and without intervals around differences of equal answers."""
    found = dict(variants)
    for variant, twin in of.items():
        of_all_seeds = {name: of for name, of in found[variant].items() if name == "method"}
        found[variant] = {"identical_to": twin} | without_intervals(found[variant]) | of_all_seeds
    for variant, values in found.items():
        for other in values.get("pairs", {}):
            if of.get(variant, variant) == of.get(other, other):
                values["pairs"][other] = _stripped(values["pairs"][other])
    return found


def _stripped(found: Any) -> Any:
    """Without any interval or p."""
    if not isinstance(found, Mapping):
        return found
    return {key: None if key in ("ci95", "p_value") else _stripped(value) for key, value in found.items()}


def without_intervals(found: Any) -> Any:
    """The same numbers, every difference without its interval."""
    if not isinstance(found, Mapping):
        return found
    return {
        key: _stripped(value)
        if isinstance(value, Mapping) and key.startswith(DIFFERENCES) and "ci95" in value
        else without_intervals(value)
        for key, value in found.items()
    }
