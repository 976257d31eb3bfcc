"""An `Explanation` with words in place of tokens."""

from __future__ import annotations

import dataclasses
import math

from detoxlens.attribution.aggregate import grouped, to_words, words_of
from detoxlens.common.errors import UserError
from detoxlens.explain.explanation import Explanation


def by_words(explanation: Explanation) -> Explanation:
    """The same attribution between words; see `attribution.aggregate.to_words`.

    A word's probability is that of all its tokens, one after another. It counts as the template's when all of them are.

    Raises:
        UserError: the target is contrastive: the other token stands for no word.
    """
    if explanation.contrast_pieces is not None:
        raise UserError("--words does not go with --target contrastive: the contrasted tokens may not be whole words.")
    prompt, completion = words_of(explanation.prompt_pieces), words_of(explanation.completion_pieces)
    return dataclasses.replace(
        explanation,
        unit="word",
        prompt_pieces=tuple(map("".join, grouped(explanation.prompt_pieces, prompt))),
        completion_pieces=tuple(map("".join, grouped(explanation.completion_pieces, completion))),
        is_template=tuple(map(all, grouped(explanation.is_template, prompt))),
        scores=tuple(map(tuple, to_words(explanation.scores, prompt, completion))),
        token_prob=tuple(map(math.prod, grouped(explanation.token_prob, completion))),
        toxic_prompt=frozenset(prompt[token] for token in explanation.toxic_prompt),
        toxic_completion=frozenset(completion[token] for token in explanation.toxic_completion),
    )
