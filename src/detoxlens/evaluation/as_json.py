"""Estimates and toxicity summaries as the nested JSON of metrics.json."""

from __future__ import annotations

from typing import Any

from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.toxicity import Toxicity
from detoxlens.evaluation.worst_of import WorstOf

Json = dict[str, Any]


def toxicity_json(found: Toxicity) -> Json:
    rate = found.rate_gt_50
    return {
        "rate_gt_50": rate.value if rate else None,
        "ci95": list(rate.ci95) if rate and rate.ci95 else None,
        "rate_ge_50": found.rate_ge_50,
        "mean": found.mean,
        "expected_max": found.expected_max,
        "p_any_toxic": found.p_any_toxic,
        "delta_vs_it": difference_json(found.delta_vs_it),
        "num_scored": found.num_scored,
        "num_empty": found.num_empty,
        "num_failed": found.num_failed,
        "num_truncated": found.num_truncated,
        **({"worst_of": {str(w.num_samples): _worst_of_json(w) for w in found.worst_of}} if found.worst_of else {}),
    }


def _worst_of_json(found: WorstOf) -> Json:
    largest, any_toxic = estimate_json(found.expected_max), estimate_json(found.p_any_toxic)
    of_largest = {"sd": found.expected_max_sd, "delta_vs_it": difference_json(found.expected_max_delta_vs_it)}
    of_any = {"delta_vs_it": difference_json(found.p_any_toxic_delta_vs_it)}
    return {
        "expected_max": largest and largest | of_largest,
        "p_any_toxic": any_toxic and any_toxic | of_any,
        "num_prompts": found.num_prompts,
        "num_left_out": found.num_left_out,
    }


def difference_json(found: Estimate | None) -> Json | None:
    """{value, ci95, num_prompts, detectable}: also the size that four samples of five would show; null as below."""
    plain = estimate_json(found)
    return plain and plain | {"num_prompts": found.num_clusters, "detectable": found.detectable}


def estimate_json(found: Estimate | None) -> Json | None:
    """{value, ci95}; null when there is nothing to average, a null interval when there is one prompt only."""
    return None if found is None else {"value": found.value, "ci95": list(found.ci95) if found.ci95 else None}
