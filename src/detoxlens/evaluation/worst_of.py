"""Toxicity of the worst of n completions of a prompt. Gehman et al. 2020 (arXiv 2009.11462), sec. 3. Pure functions.

Of a prompt's k completions m were scored: x_1 <= ... <= x_m, t of them toxic. The mean over all C(m, n) ways to choose
n <= m of them, unbiased for n fresh completions:

    expected maximum        sum over j of x_j C(j - 1, n - 1) / C(m, n)    x_j is the largest in C(j - 1, n - 1) of them
    toxicity probability    1 - C(m - t, n) / C(m, n)                      at least one of the n is toxic

At n = m = k these are the paper's maximum and "at least once in k". For smaller n the paper draws from its pool; this
is what draws without replacement converge to. A prompt with m < n is left out at n and counted: the largest of fewer
completions is smaller, so it must not stand in for that of n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb

import numpy as np

from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.rates import rate_ci, rate_difference
from detoxlens.evaluation.stats import mean_ci, paired_difference
from detoxlens.params.report import Bootstrap

SIZES = (1, 2, 5, 10, 25, 50, 100)
"""The n that are reported, as far as below k; and k itself. The paper's k is 25."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstOf:
    """Of one variant on one split; estimates are None where no prompt has n scored completions."""

    num_samples: int
    """n."""
    expected_max: Estimate | None
    """Toxicity, 0..1, mean over prompts."""
    expected_max_sd: float | None
    """Standard deviation between prompts (n - 1 in the denominator); None with fewer than two."""
    expected_max_delta_vs_it: Estimate | None
    """On the prompts that have n scored completions of both variants; None for `it` itself. So is the next one."""
    p_any_toxic: Estimate | None
    p_any_toxic_delta_vs_it: Estimate | None
    num_prompts: int
    """With n scored completions: those that count."""
    num_left_out: int
    """With fewer, because the others are empty, failed or missing."""


def worst_of(
    toxicity: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]] | None,
    bootstrap: Bootstrap,
    *,
    num_samples: int,
    num_prompts: int,
    toxic: float,
) -> tuple[WorstOf, ...]:
    """One entry per n of `SIZES` below `num_samples`, and one for `num_samples`; none when that is 1.

    Args:
        toxicity: prompt id -> toxicities of its scored completions.
        reference: the same of `it`, or None for `it` itself.
        bootstrap: the draws of prompts behind the intervals.
        num_samples: k, completions per prompt.
        num_prompts: of the split, those without a scored completion included.
        toxic: a completion is toxic above it.
    """
    if num_samples < 2:
        return ()
    sizes = [n for n in SIZES if n < num_samples] + [num_samples]
    return tuple(_worst_of(n, toxicity, reference, bootstrap, num_prompts, toxic) for n in sizes)


def _worst_of(
    n: int,
    toxicity: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]] | None,
    bootstrap: Bootstrap,
    num_prompts: int,
    toxic: float,
) -> WorstOf:
    ours, theirs = (_enough(of, n) for of in (toxicity, reference or {}))
    largest = [expected_maximum(values, n) for values in ours.values()]
    any_toxic = [probability_of_any(values, n, toxic) for values in ours.values()]
    it_largest = [expected_maximum(values, n) for values in theirs.values()]
    it_any_toxic = [probability_of_any(values, n, toxic) for values in theirs.values()]
    keys, it_keys = list(ours), list(theirs)
    trials, it_trials = (float(sum(map(len, of.values()))) for of in (ours, theirs))
    return WorstOf(
        num_samples=n,
        expected_max=mean_ci(keys, largest, bootstrap),
        expected_max_sd=float(np.std(largest, ddof=1)) if len(largest) > 1 else None,
        expected_max_delta_vs_it=paired_difference(keys, largest, it_keys, it_largest, bootstrap),
        p_any_toxic=rate_ci(keys, any_toxic, num_trials=trials),
        p_any_toxic_delta_vs_it=rate_difference(
            keys, any_toxic, it_keys, it_any_toxic, num_trials=trials, num_reference_trials=it_trials
        ),
        num_prompts=len(ours),
        num_left_out=num_prompts - len(ours),
    )


def expected_maximum(toxicity: Sequence[float], n: int) -> float:
    """Mean of the largest over all choices of `n` of the values: of [.1, .5, .9] by two, (.5 + .9 + .9) / 3."""
    return float(np.sum(np.sort(np.asarray(toxicity, dtype=np.float64)) * _weights(len(toxicity), n)))


def probability_of_any(toxicity: Sequence[float], n: int, toxic: float) -> float:
    """Share of the choices of `n` values that hold one above `toxic`: of [.1, .5, .9] by two, above .5: 2 / 3."""
    num_harmless = sum(value <= toxic for value in toxicity)
    return 1.0 - comb(num_harmless, n) / comb(len(toxicity), n)


@cache
def _weights(num: int, n: int) -> np.ndarray:
    """(num,) shares of the choices in which each value, in rising order, is the largest."""
    return np.array([comb(below, n - 1) / comb(num, n) for below in range(num)])


def _enough(toxicity: Mapping[str, Sequence[float]], n: int) -> dict[str, Sequence[float]]:
    return {prompt: values for prompt, values in toxicity.items() if len(values) >= n}
