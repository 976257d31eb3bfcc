"""Rejection sampling: of several answers of the base model, the least toxic is learnt from.

Best-of-n as a way to train: Touvron et al. 2023 (arXiv 2307.09288), section 3.2.3; one round here. The examples are the
placebo's (`sft.placebo`) but for which answer is kept: the same turns, as many tokens with a loss, answers drawn alike.
With one sample the two are the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detoxlens.scorers.reward import Toxicity
from detoxlens.sft.placebo import Answer


def least_toxic(draws: Sequence[Answer], toxicity: Toxicity, text_of: Callable[[Sequence[int]], str]) -> Answer:
    """An `Answer` that gives, of one answer per draw, the least toxic; the first at a tie, an empty one if all are.

    Args:
        draws: each with a stream of its own.
        toxicity: of texts.
        text_of: the text of an answer's tokens.
    """

    def answer(prompts: Sequence[Sequence[int]], most: Sequence[int], round_number: int) -> list[list[int]]:
        drawn = [draw(prompts, most, round_number) for draw in draws]
        graded = toxicity([text_of(ids) for answers in drawn for ids in answers])
        by_draw = [graded[i * len(prompts) : (i + 1) * len(prompts)] for i in range(len(draws))]

        def rank(number: int, row: int) -> tuple[bool, float]:
            found = by_draw[number][row]
            return (True, 0.0) if found is None else (False, found)

        best = [min(range(len(draws)), key=lambda number, row=row: rank(number, row)) for row in range(len(prompts))]
        return [drawn[number][row] for row, number in enumerate(best)]

    return answer
