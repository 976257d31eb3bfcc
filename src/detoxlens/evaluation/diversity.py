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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.common.coded import Coded, Ragged

DAMPED = (1.0, 0.75, 0.25)
"""Weights of f_1, -f_2, f_3."""
SMALLEST = 0.1
"""Share of the jackknife's variance that is left at least."""
PART = 2**21
"""About as many n-grams are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Written:
    """The token ids of completions, with the prompt of each."""

    prompts: Coded[str]
    ids: Ragged

    @classmethod
    def of(cls, prompts: Sequence[str], ids: Ragged) -> Written:
        """Prompts are numbered in the order of their first completions."""
        return cls(Coded.of(prompts).renumbered(), ids)


@dataclass(frozen=True, slots=True)
class NgramCounts:
    """The n-grams of one variant."""

    prompts: Sequence[str]
    num_by_prompt: np.ndarray  # (prompts,) all of them
    num_alone: np.ndarray  # (prompts,) different ones that no other prompt has
    num_in: Mapping[int, int]
    """k -> those that are in exactly k prompts."""
    num_possible: int
    """Different ones that any of the compared variants wrote: V."""

    @property
    def num_distinct(self) -> int:
        return sum(self.num_in.values())

    @property
    def share_distinct(self) -> float | None:
        """Different n-grams / all, as `fluency.distinct_n`."""
        num = int(self.num_by_prompt.sum())
        return self.num_distinct / num if num else None


def ngrams_by_prompt(written: Mapping[str, Written], n: int) -> dict[str, NgramCounts]:
    """{variant: its n-grams}, counted a part of them at a time: those whose first token leaves the same remainder."""
    width = 1 + max((int(of.ids.values.max(initial=0)) for of in written.values()), default=0)
    num = max((len(of.ids.values) for of in written.values()), default=0)
    num_parts, num_possible = max(1, num // PART), 0
    alone = {variant: np.zeros(len(of.prompts.names), np.int64) for variant, of in written.items()}
    num_in: dict[str, Counter[int]] = {variant: Counter() for variant in written}
    for part in range(num_parts):
        found = [np.zeros(0, np.int64)]
        for variant, of in written.items():
            grams, of_prompt = _grams(of, n, width, part, num_parts)
            different, number = np.unique(grams, return_inverse=True)
            found.append(different)
            pairs = np.unique(number * len(of.prompts.names) + of_prompt)
            gram, prompt = np.divmod(pairs, max(1, len(of.prompts.names)))
            num_with = np.bincount(gram, minlength=len(different))  # prompts that have it
            alone[variant] += np.bincount(prompt[num_with[gram] == 1], minlength=len(of.prompts.names))
            num_in[variant].update(
                dict(zip(*(x.tolist() for x in np.unique(num_with, return_counts=True)), strict=True))
            )
        num_possible += len(np.unique(np.concatenate(found)))
    return {
        variant: NgramCounts(
            of.prompts.names,
            np.bincount(of.prompts.codes, np.maximum(0, of.ids.lengths - n + 1), len(of.prompts.names)).astype(
                np.int64
            ),
            alone[variant],
            num_in[variant],
            num_possible,
        )
        for variant, of in written.items()
    }


def _grams(of: Written, n: int, width: int, part: int, num_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """n-grams as numbers, each with its prompt's; of the part whose first token is `part` modulo `num_parts`."""
    values, offsets = of.ids.values, of.ids.offsets
    row = np.repeat(np.arange(len(of.ids), dtype=np.int32), of.ids.lengths)
    start = np.flatnonzero(values % num_parts == part) if num_parts > 1 else np.arange(len(values))
    start = start[start + n <= offsets[1:][row[start]]]
    grams = values[start].astype(np.int64)
    assert width**n < 2**63, (width, n)
    for k in range(1, n):
        grams = grams * width + values[start + k]
    return grams, of.prompts.codes[row[start]]


def adjusted_distinct(num_distinct: int, num_all: int, num_possible: int) -> float | None:
    """Liu et al.'s score, about 1 for uniform draws from `num_possible` n-grams; None without any n-gram."""
    if not num_all:
        return None
    return (
        num_distinct / -(num_possible * math.expm1(num_all * math.log1p(-1 / num_possible)))
        if num_possible > 1
        else 1.0
    )


def distinct_by_prompt(counted: NgramCounts) -> tuple[Sequence[str], np.ndarray] | None:
    """Prompts and one value each (prompts,), whose mean is the score of all and whose spread is its sampling error.

    value_i = score + c (N - 1) (mean over j of score without j - score without i)    N: prompts; c <= 1: see above
    """
    num_all, num_distinct = int(counted.num_by_prompt.sum()), counted.num_distinct
    score = adjusted_distinct(num_distinct, num_all, counted.num_possible)
    if score is None:
        return None
    without = np.array(
        [
            adjusted_distinct(num_distinct - alone, num_all - num, counted.num_possible) or 0.0
            for alone, num in zip(counted.num_alone.tolist(), counted.num_by_prompt.tolist(), strict=True)
        ]
    )
    values = (len(without) - 1) * (without.mean() - without)
    variance = float(np.mean(values**2)) / max(1, len(values) - 1)
    excess = jackknife_excess(counted.num_in) * (score / num_distinct) ** 2
    shrunk = max(variance - excess, SMALLEST * variance)
    return counted.prompts, score + values * math.sqrt(shrunk / variance if variance > 0 else 1.0)


def jackknife_excess(num_in: Mapping[int, int]) -> float:
    """By how much the jackknife overstates the variance of the number of different n-grams.

    Args:
        num_in: k -> f_k, the n-grams that are in exactly k prompts.
    """
    varies = sum(-((-1) ** k) * weight * num_in.get(k, 0) for k, weight in enumerate(DAMPED, 1))
    return max(0.0, num_in.get(1, 0) - varies)


def repetitions(ids: Ragged, n: int) -> np.ndarray:
    """(rows,) share of a completion's n-grams that it has written before, 0..1; NaN without any.

    Seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319).
    """
    lengths, width = ids.lengths, 1 + int(ids.values.max(initial=0))
    found = np.full(len(ids), np.nan)
    for length in np.unique(lengths[lengths >= n]).tolist():
        rows = np.flatnonzero(lengths == length)
        for some in np.array_split(rows, 1 + len(rows) * length // PART):
            tokens = ids.values[ids.offsets[some][:, None] + np.arange(length)].astype(np.int64)  # (rows, length)
            num = length - n + 1
            grams = tokens[:, :num]
            for k in range(1, n):
                grams = grams * width + tokens[:, k : k + num]
            grams = np.sort(grams, axis=1)
            num_different = 1 + (np.diff(grams, axis=1) != 0).sum(1)
            found[some] = 1 - num_different / num
    return found
