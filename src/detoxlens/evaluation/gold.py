"""A test of attributions with a known answer: a generated word that was copied from the prompt was caused by it there.

    user's text   Zorgons   knit    loud   scarves           answer   Let the [Zorgons] knit
    score         .40       .10     .30    .20               of the first token of "Zorgons"
    cue           *                                          rank 1: hit@1 = 1, reciprocal rank 1
    control                         *                        rank 2: hit@1 = 0, reciprocal rank 1/2

The control is another word of the same text, about as frequent and about as far back: what the attribution gives it, it
gives to words of that kind. An attribution that only knows frequency and position ranks both alike. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

TENTHS = 10
"""How far a control may be from its cue: a tenth of the prompt weighs as much as a factor of two in frequency."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A generated word that stands in the prompt: Copied(step=3, cues=(0,), controls=(2,))."""

    step: int
    """Generated token that begins the word, from 0."""
    cues: tuple[int, ...]
    """Words of the prompt that it repeats."""
    controls: tuple[int, ...]
    """As many others; empty where the prompt has none to compare with."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How high some words stand by their scores; each 0..1, 1 is best."""

    hit_at_1: float
    """Is one of them first, with none above it?"""
    mrr: float
    """1 / rank of the best of them; equals share the worst rank."""
    auprc: float
    """Average precision: the mean over them of the share of them among all words that score as much or more."""


def copied_words(
    prompt: Sequence[str | None], answer: Sequence[tuple[int, str | None]], frequency: Mapping[str, int]
) -> list[Copied]:
    """The answer's words that its prompt contains, each with its controls.

    Args:
        prompt: the user's words by their content (`fluency.content_words`); None for one without content.
        answer: (first token, content) of each generated word.
        frequency: in how many prompts each content stands; one that is in none of them, such as a word of a system
            message, counts as in this prompt alone.
    """
    said = {content for _, content in answer}
    others = [j for j, content in enumerate(prompt) if content is not None and content not in said]
    found = []
    for step, content in answer:
        cues = tuple(j for j, word in enumerate(prompt) if content is not None and word == content)
        if cues:
            found.append(Copied(step, cues, controls(cues, others, prompt, frequency)))
    return found


def rank(scores: Sequence[float], chosen: Collection[int]) -> Ranking:
    """The ranking of the words `chosen` among all words by their scores."""
    top = max(scores[j] for j in chosen)
    num_above = sum(score >= top for j, score in enumerate(scores) if j not in chosen)
    precisions = []
    for j in chosen:
        as_high = [k for k, score in enumerate(scores) if score >= scores[j]]
        precisions.append(sum(k in chosen for k in as_high) / len(as_high))
    return Ranking(
        hit_at_1=float(num_above == 0), mrr=1 / (1 + num_above), auprc=math.fsum(precisions) / len(precisions)
    )


def controls(
    cues: Sequence[int], others: Sequence[int], prompt: Sequence[str | None], frequency: Mapping[str, int]
) -> tuple[int, ...]:
    """For each cue the nearest other word that no other cue has taken; none where there are too few."""
    if len(others) < len(cues):
        return ()
    left, chosen = list(others), []
    for cue in cues:

        def distance(j: int, cue: int = cue) -> tuple[float, int]:
            doublings = abs(math.log2(frequency.get(prompt[j], 1) / frequency.get(prompt[cue], 1)))
            return doublings + TENTHS * abs(j - cue) / len(prompt), j

        chosen.append(min(left, key=distance))
        left.remove(chosen[-1])
    return tuple(sorted(chosen))
