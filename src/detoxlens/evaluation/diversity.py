"""Variety of completions, per prompt, so that it has intervals. Pure functions.

Distinct n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055) falls with the amount of text. Liu et al. 2022
(arXiv 2202.13587) divide the number of distinct n-grams by what as many uniform draws from the vocabulary would give:

    distinct / (V (1 - ((V - 1) / V)^C))      C: n-grams written; V: n-grams that any of the compared variants wrote

A distinct count is no mean over prompts. Its interval comes from the jackknife, prompts left out one by one; a
bootstrap would draw prompts twice and count their n-grams once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Gram = tuple[int, ...]


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
    """Prompts and one value each (prompts,), whose mean is the score of all and whose spread is its jackknife variance.

    value_i = score + (N - 1) (mean over j of score without j - score without i)    N: prompts

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
    return list(by_prompt), score + (len(without) - 1) * (without.mean() - without)


def repetition(ids: Sequence[int], n: int) -> float:
    """Share of a completion's n-grams that it has written before, 0..1; NaN without any.

    Seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319).
    """
    grams = ngrams(ids, n)
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")
