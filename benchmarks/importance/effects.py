"""From the looks of each training to seed-paired differences. Pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

Looks = Sequence[Mapping[str, float]]


def steps_to_half(looks: Looks) -> float | None:
    """Steps until the toxicity is half of what it was before training, between two looks linearly; None: never."""
    half = looks[0]["toxicity"] / 2
    for before, after in itertools.pairwise(looks):
        if after["toxicity"] <= half:
            share = (before["toxicity"] - half) / (before["toxicity"] - after["toxicity"])
            return before["step"] + share * (after["step"] - before["step"])
    return None


def mean_along(looks: Looks, quantity: str) -> float:
    """Area under a curve over the steps, divided by their number (trapezoids)."""
    steps, values = [look["step"] for look in looks], [look[quantity] for look in looks]
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def at_kl(looks: Looks, kl: float, quantity: str) -> float | None:
    """The quantity where the training first reaches this KL, between two looks linearly; None: never."""
    for before, after in itertools.pairwise(looks):
        low, high = before["kl_nats_per_sequence"], after["kl_nats_per_sequence"]
        if low <= kl <= high and high > low:
            return before[quantity] + (kl - low) / (high - low) * (after[quantity] - before[quantity])
    return None


def common_kl(runs: Sequence[Looks]) -> float:
    """The largest KL that every training reaches, nats per sequence."""
    return min(max(look["kl_nats_per_sequence"] for look in looks) for looks in runs)


def paired(one: Mapping[int, float | None], other: Mapping[int, float | None]) -> dict[str, float | int | None]:
    """Mean of one - other over the seeds where both are known, with Student's 95 % interval; None below two seeds."""
    seeds = [s for s in one if one[s] is not None and other.get(s) is not None]
    differences = np.array([one[s] - other[s] for s in seeds])
    if len(seeds) < 2:
        return {"value": None, "lo": None, "hi": None, "num_seeds": len(seeds)}
    half = stats.t.ppf(0.975, len(seeds) - 1) * differences.std(ddof=1) / math.sqrt(len(seeds))
    mean = float(differences.mean())
    return {"value": mean, "lo": mean - float(half), "hi": mean + float(half), "num_seeds": len(seeds)}


def outcomes(looks: Looks, kl: float) -> dict[str, float | None]:
    """What is compared between arms."""
    return {
        "toxicity_at_equal_kl": at_kl(looks, kl, "toxicity"),
        "base_perplexity_at_equal_kl": at_kl(looks, kl, "base_perplexity"),
        "steps_to_half": steps_to_half(looks),
        "mean_toxicity_along_training": mean_along(looks, "toxicity"),
        "toxicity_at_end": looks[-1]["toxicity"],
        "kl_nats_per_sequence_at_end": looks[-1]["kl_nats_per_sequence"],
        "base_perplexity_at_end": looks[-1]["base_perplexity"],
        "empty_share_at_end": looks[-1]["empty_share"],
    }
