"""Primary endpoints: one per question, declared in `report.primary` before the data are seen; the rest is exploratory.

An endpoint is a difference in a variant's entry of metrics.json, by its path: `toxicity/p50/delta_vs_it`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.errors import did_you_mean

Json = Mapping[str, Any]


def endpoint(entry: Json, path: str) -> Json | None:
    """What stands at `path` in a variant's entry; None where there is nothing, or no difference."""
    found: Any = entry
    for key in path.split("/"):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found if isinstance(found, Mapping) and "value" in found else None


def absent_endpoints(metrics: Json, primary: Mapping[str, str]) -> list[str]:
    """A sentence for each question whose endpoint no variant has: its name is wrong, or nothing was measured."""
    entries = [entry for variants in metrics.values() for variant, entry in variants.items() if variant != "it"]
    known = sorted({path for entry in entries for path in _paths(entry)})
    return [
        f"report.primary: no variant has {path!r}, the endpoint of {question!r}.{did_you_mean(path, known)} "
        "The question stays unanswered."
        for question, path in primary.items()
        if entries and not any(endpoint(entry, path) for entry in entries)
    ]


def _paths(entry: Json, prefix: str = "") -> list[str]:
    """Of every difference."""
    found = []
    for key, value in entry.items():
        if isinstance(value, Mapping):
            found += [f"{prefix}{key}"] if "value" in value else []
            found += _paths(value, f"{prefix}{key}/")
    return found
