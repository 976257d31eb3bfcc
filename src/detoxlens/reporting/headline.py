"""The few numbers of a (model, variant) that one looks at first: one flat file each, which DVC prints as one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.reporting.table import value_at


def headline(metrics: Mapping[str, Any], *, primary: str) -> dict[str, float | None]:
    """Ten numbers of one (model, variant) of metrics.json, in reading order; None where it has none. Twelve where
    the primary split has several completions per prompt.

    Args:
        metrics: this (model, variant) of `build_metrics`.
        primary: the split that they are about.
    """
    rates = metrics["toxicity"].get(primary)
    several = bool(rates and rates.get("worst_of"))
    use = value_at(metrics, "attribution", "effects", value_at(metrics, "attribution", "scope") or "prompt")
    return {
        "toxic": value_at(rates, "rate_gt_50"),
        "toxic_vs_base": value_at(rates, "delta_vs_it", "value"),
        "toxic_val": value_at(metrics, "toxicity", "val", "rate_gt_50"),
        "entropy_bits_model_effect": value_at(use, "prompt_entropy_bits", "model_effect", "value"),
        "dependence_bits_model_effect": value_at(use, "prompt_dependence_excess_bits", "model_effect", "value"),
        "entropy_bits_own_text": value_at(metrics, "attribution", "prompt_entropy_bits", "value"),
        "dependence_own_text": value_at(metrics, "attribution", "prompt_dependence", "value"),
        "perplexity": metrics["fluency"]["perplexity"],
        "distinct_2": metrics["fluency"]["distinct_2"],
        "mean_length": metrics["fluency"]["mean_length"],
        **({"expected_max": rates["expected_max"], "any_toxic": rates["p_any_toxic"]} if several else {}),
    }
