"""Which words of the examples are underlined: those of minimal sets, where a grader was asked about parts of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detoxlens.common.records import ToxicWord
from detoxlens.evaluation.toxic_words import words_in
from detoxlens.reporting.examples import Example
from detoxlens.reporting.study import Study

Place = tuple[str, str, str, int]
"""Model, variant, prompt and sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Marks(words={2}, prompt_tokens={3, 4}, completion_tokens={5}): what is toxic in an answer and in its prompt."""

    words: frozenset[int]
    """Of the answer, by `evaluation.toxic_words.words_in`."""
    prompt_tokens: frozenset[int]
    completion_tokens: frozenset[int]


def word_marks(study: Study, examples: Sequence[Example]) -> dict[Place, Marks]:
    """The marks of every answer shown; none of a model whose toxic words nobody looked for."""
    found: dict[Place, Marks] = {}
    for model, variants in study.models.items():
        if study.words_by is None or variants["it"].toxic_words is None:
            continue
        shown = {(e.prompt_id, e.sample_index) for e in examples if e.model == model}
        of_prompts = [w for w in variants["it"].toxic_words if w.text_source == "prompt" and w.in_minimal]
        for variant, tables in variants.items():
            own = [w for w in tables.toxic_words or () if w.text_source == "own" and w.in_minimal]
            for key in shown:
                mine = [w for w in own if (w.prompt_id, w.sample_index) == key]
                found[model, variant, *key] = Marks(
                    words=frozenset(w.word_index for w in mine),
                    prompt_tokens=_tokens([w for w in of_prompts if w.prompt_id == key[0]]),
                    completion_tokens=_tokens(mine),
                )
    return found


def marked_words(text: str, words: frozenset[int]) -> list[tuple[str, bool]]:
    """`text` in pieces: (piece, is it one of `words`); joined they are `text`."""
    pieces, end = [], 0
    for number, word in enumerate(words_in(text)):
        if number in words:
            pieces += [(text[end : word.start], False), (word.text, True)]
            end = word.stop
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]


def _tokens(words: Sequence[ToxicWord]) -> frozenset[int]:
    return frozenset(
        t
        for w in words
        if w.first_token is not None and w.last_token is not None
        for t in range(w.first_token, w.last_token + 1)
    )
