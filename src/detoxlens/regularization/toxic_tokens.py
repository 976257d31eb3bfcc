"""Which tokens belong to the toxic words of the human turns: those of `evaluation.toxic_words`, by a local grader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Scorer
from detoxlens.evaluation.toxic_words import Judge, LocalJudge, can_judge_parts
from detoxlens.evaluation.word_tokens import toxic_prompt_tokens


def toxic_tokens(turns: Mapping[int, str], exchange: Sequence[int], pieces: Sequence[str], judge: Judge) -> list[bool]:
    """Per token: is it of a toxic word of one of the human turns?

    Args:
        turns: number of the exchange -> the human's text.
        exchange: per token, as in `columns`.
        pieces: the text of each token.
        judge: a local grader; turns that come up again should cost nothing.
    """
    is_toxic = [False] * len(exchange)
    numbers = list(turns)
    others = [[e != number for e in exchange] for number in numbers]
    found = toxic_prompt_tokens([turns[n] for n in numbers], [pieces] * len(numbers), others, judge)
    for spans in found:
        for span in spans:
            is_toxic[span.first : span.last + 1] = [True] * (span.last + 1 - span.first)
    return is_toxic


def judge_of(scorer: Scorer, *, section: str) -> Judge:
    """The scorer that `regularizer.scorer` names, to be asked about parts of turns.

    Raises:
        UserError: it is a service or a file.
    """
    if not can_judge_parts(scorer):
        raise UserError(
            f"{section}.regularizer.scorer={scorer.name!r} is a {scorer.source}; the toxic words of human turns are "
            "found by grading each turn many times without one word or another. Name a scorer that works here: "
            "profanity_check, hf:... or onnx:..., or another regularizer.kind."
        )
    return LocalJudge(scorer)
