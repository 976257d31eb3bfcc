"""From the looks of each training to seed-paired differences. Pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.importance.arms import PLACEBO, PLAIN, arms_of

Looks = Sequence[Mapping[str, float]]
Column = Mapping[int, float | None]
"""Seed -> a number; None where the training never came there."""


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


def paired(one: Column, other: Column) -> dict[str, float | int | None]:
    """Mean of one - other over the seeds where both are known, with Student's 95 % interval and p; None below two."""
    seeds = [s for s in one if one[s] is not None and other.get(s) is not None]
    differences = np.array([one[s] - other[s] for s in seeds])
    if len(seeds) < 2:
        return {"value": None, "lo": None, "hi": None, "p": None, "num_seeds": len(seeds)}
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(seeds))
    half = float(stats.t.ppf(0.975, len(seeds) - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, len(seeds) - 1)) if error else float(mean == 0)
    return {"value": mean, "lo": mean - half, "hi": mean + half, "p": p, "num_seeds": len(seeds)}


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


def effects(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """ "KIND, weight W" -> its common KL, each arm's means, and the seed-paired differences to plain and placebo."""
    felt = {(r["regularizer"]["kind"], abs(r["regularizer"]["weight"])) for r in runs if r["regularizer"]["weight"]}
    return {f"{kind}, weight {weight:g}": _effects(runs, kind, weight) for kind, weight in sorted(felt)}


def _effects(runs: Sequence[Mapping[str, Any]], kind: str, weight: float) -> dict[str, Any]:
    arms = {arm: _trainings(runs, regularizer) for arm, regularizer in arms_of(kind, weight, 0).items()}
    kl = common_kl([r["looks"] for trainings in arms.values() for r in trainings])
    rows = {
        arm: {r["seed"]: outcomes(r["looks"], kl) | {"quantity_at_end": _at_end(r, kind)} for r in trainings}
        for arm, trainings in arms.items()
    }
    names = list(next(iter(rows[PLAIN].values()), {}))
    columns = {arm: {n: {s: row[n] for s, row in found.items()} for n in names} for arm, found in rows.items()}
    pairs = [(arm, PLAIN) for arm in ("lower", "raise", PLACEBO)]
    pairs += [("lower", PLACEBO), ("raise", PLACEBO), ("lower", "raise")]
    return {
        "common_kl_nats_per_sequence": kl,
        "num_seeds": {arm: len(found) for arm, found in rows.items()},
        "never_half": {arm: sum(row["steps_to_half"] is None for row in found.values()) for arm, found in rows.items()},
        "means": {arm: {n: _mean(column) for n, column in found.items()} for arm, found in columns.items()},
        "differences": {f"{a} - {b}": {n: paired(columns[a][n], columns[b][n]) for n in names} for a, b in pairs},
    }


def _trainings(runs: Sequence[Mapping[str, Any]], regularizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of one arm; the plain one is every kind's."""

    def key(setting: Mapping[str, Any]) -> tuple[Any, ...]:
        if not setting["weight"]:
            return (0,)
        return setting["kind"], setting["weight"], setting.get("columns", "own")

    return [r for r in runs if key(r["regularizer"]) == key(regularizer)]


def _at_end(run: Mapping[str, Any], kind: str) -> float | None:
    """The quantity at the last two steps; None where another one was measured, or on shuffled columns."""
    comparable = run["regularizer"]["kind"] == kind and "columns" not in run["regularizer"]
    return sum(run["quantity"][-2:]) / 2 if comparable and len(run["quantity"]) >= 2 else None


def _mean(column: Column) -> float | None:
    known = [v for v in column.values() if v is not None]
    return sum(known) / len(known) if known else None
