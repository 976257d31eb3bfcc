"""Variety of completions, per prompt, so that it has intervals. Pure functions.

Distinct n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055) falls with the amount of text. Liu et al. 2022
(arXiv 2202.13587) divide the number of distinct n-grams by what as many uniform draws from the vocabulary would give:

    distinct / (V (1 - ((V - 1) / V)^C))      C: n-grams written; V: n-grams that any of the compared variants wrote

A distinct count is no mean over prompts. Its interval comes from the jackknife, prompts left out one by one; a
bootstrap would draw prompts twice and count their n-grams once. The jackknife's variance is too large for what is no
sum over prompts (Efron and Stein 1981): of an n-gram that is in lambda prompts on average it has lambda e^-lambda, the
number of those in exactly one, f_1, where being there or not varies by e^-lambda (1 - e^-lambda), whose estimate is

    f_1 - f_2 + f_3 - ...    f_k: n-grams in exactly k prompts

damped (Efron and Thisted 1976, Biometrika 63) to f_1 - 3/4 f_2 + 1/4 f_3: the whole series is mostly noise, and what is
cut off is below 7 % of the term up to lambda = 2. The excess is taken out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Gram = tuple[int, ...]
DAMPED = (1.0, 0.75, 0.25)
"""Weights of f_1, -f_2, f_3."""
SMALLEST = 0.1
"""Share of the jackknife's variance that is left at least."""


def ngrams(ids: Sequence[int], n: int) -> list[Gram]:
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


def num_ngrams(sequences: Iterable[Sequence[int]], n: int) -> int:
    """Different n-grams in all `sequences`: V."""
    return len({gram for ids in sequences for gram in ngrams(ids, n)})


def adjusted_distinct(num_distinct: int, num_all: int, num_possible: int) -> float | None:
    """Liu et al.'s score, about 1 for uniform draws from `num_possible` n-grams; None without any n-gram."""
    if not num_all:
        return None
    return (
        num_distinct / -(num_possible * math.expm1(num_all * math.log1p(-1 / num_possible)))
        if num_possible > 1
        else 1.0
    )


def distinct_by_prompt(
    sequences: Mapping[str, Sequence[Sequence[int]]], n: int, num_possible: int
) -> tuple[list[str], np.ndarray] | None:
    """Prompts and one value each (prompts,), whose mean is the score of all and whose spread is its sampling error.

    value_i = score + c (N - 1) (mean over j of score without j - score without i)    N: prompts; c <= 1: see above

    Args:
        sequences: prompt id -> token ids of its completions.
        n: length of an n-gram.
        num_possible: V.
    """
    by_prompt = {prompt: Counter(g for ids in of for g in ngrams(ids, n)) for prompt, of in sequences.items()}
    num_with = Counter(gram for grams in by_prompt.values() for gram in grams)  # prompts that have it
    num_all, num_distinct = sum(map(Counter.total, by_prompt.values())), len(num_with)
    score = adjusted_distinct(num_distinct, num_all, num_possible)
    if score is None:
        return None
    without = np.array(
        [
            adjusted_distinct(
                num_distinct - sum(num_with[gram] == 1 for gram in grams), num_all - grams.total(), num_possible
            )
            or 0.0
            for grams in by_prompt.values()
        ]
    )
    values = (len(without) - 1) * (without.mean() - without)
    variance = float(np.mean(values**2)) / max(1, len(values) - 1)
    excess = jackknife_excess(Counter(num_with.values())) * (score / num_distinct) ** 2
    shrunk = max(variance - excess, SMALLEST * variance)
    return list(by_prompt), score + values * math.sqrt(shrunk / variance if variance > 0 else 1.0)


def jackknife_excess(num_in: Mapping[int, int]) -> float:
    """By how much the jackknife overstates the variance of the number of different n-grams.

    Args:
        num_in: k -> f_k, the n-grams that are in exactly k prompts.
    """
    varies = sum(-((-1) ** k) * weight * num_in.get(k, 0) for k, weight in enumerate(DAMPED, 1))
    return max(0.0, num_in.get(1, 0) - varies)


def repetition(ids: Sequence[int], n: int) -> float:
    """Share of a completion's n-grams that it has written before, 0..1; NaN without any.

    Seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319).
    """
    grams = ngrams(ids, n)
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")
