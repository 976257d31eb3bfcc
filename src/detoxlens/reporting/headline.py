"""The few numbers of a (model, variant) that one looks at first: one flat file each, which DVC prints as one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def headline(metrics: Mapping[str, Any], *, primary: str) -> dict[str, float | None]:
    """Ten numbers of one (model, variant) of metrics.json, in reading order; None where it has none. Twelve where the
    primary split has several completions per prompt.

    Args:
        metrics: this (model, variant) of `build_metrics`.
        primary: the split that they are about.
    """
    rates = metrics["toxicity"].get(primary)
    several = bool(rates and rates.get("worst_of"))
    entropy, dependence = (metrics["attribution"].get(f"prompt_{name}") for name in ("entropy_bits", "dependence"))
    return {
        "toxic": _at(rates, "rate_gt_50"),
        "toxic_vs_it": _at(rates, "delta_vs_it", "value"),
        "toxic_val": _at(metrics["toxicity"].get("val"), "rate_gt_50"),
        "entropy_bits": _at(entropy, "value"),
        "entropy_bits_vs_it": _at(entropy, "delta_vs_it", "value"),
        "dependence": _at(dependence, "value"),
        "dependence_vs_it": _at(dependence, "delta_vs_it", "value"),
        "perplexity": metrics["fluency"]["perplexity"],
        "distinct_2": metrics["fluency"]["distinct_2"],
        "mean_length": metrics["fluency"]["mean_length"],
        **({"expected_max": rates["expected_max"], "any_toxic": rates["p_any_toxic"]} if several else {}),
    }


def _at(tree: Mapping[str, Any] | None, *keys: str) -> float | None:
    """`tree[a][b]`, None where a branch is None: `it` has no difference to itself, a split may be empty."""
    for key in keys:
        if tree is None:
            return None
        tree = tree[key]
    return tree
