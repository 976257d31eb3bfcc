"""Several comparisons of one question: p of an interval, and Holm's correction. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy.special import stdtr

from detoxlens.evaluation.as_json import difference_json
from detoxlens.evaluation.intervals import Estimate, t_quantile
from detoxlens.evaluation.seeds import OverSeeds

Json = dict[str, Any]


def p_value(found: Estimate) -> float | None:
    """Two-sided p, 0..1, of a difference that is 0 in truth; None without an interval, or of a single prompt.

    From the end of the 95 % interval that is nearer to 0: it is t's 97.5 % quantile of standard errors from the value,
    so p < .05 where the interval excludes 0, and only there. Altman and Bland 2011 (BMJ 343:d2304), with t instead of
    the normal distribution: of prompts - 1 degrees of freedom, or of those of the seeds.

        value 3, interval [1, 5], many prompts: 3 / (2 / 1.96) = 2.94 standard errors, p = .003
    """
    df = found.df if isinstance(found, OverSeeds) else found.num_clusters - 1
    if found.ci95 is None or df < 1:
        return None
    lo, hi = found.ci95
    reach = found.value - lo if found.value > 0 else hi - found.value
    if reach <= 0:
        return 1.0 if found.value == 0 else 0.0
    t = abs(found.value) / reach * t_quantile(df)
    return math.erfc(t / math.sqrt(2)) if math.isinf(df) else 2 * float(stdtr(df, -t))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p of each, 0..1, smallest first: all below .05 differ, with one false one in 20 such families at most.

    The smallest of k is multiplied by k, the next by k - 1, ..., and none is below the one before it. Holm 1979
    (Scandinavian Journal of Statistics 6, 65-70).

        {a: .01, b: .04, c: .03} -> {a: .03, c: .06, b: .06}
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return adjusted


def compared_json(found: Estimate | None) -> Json | None:
    """`difference_json` with `p_value`."""
    plain = difference_json(found)
    return plain and plain | {"p_value": p_value(found)}
