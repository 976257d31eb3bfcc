"""The rows of toxic_words.parquet: every word of what was found toxic, and of every prompt, with its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detoxlens.common.records import Completion, ToxicWord
from detoxlens.evaluation.toxic_words import Judge, Located, locate, words_in
from detoxlens.evaluation.word_tokens import token_spans

Pieces = Callable[[tuple[int, ...]], Sequence[str]]
"""Token ids -> the text of each (`attribution.pieces`)."""


def word_rows(
    completions: Sequence[Completion], judge: Judge, pieces: Pieces, *, prompts: bool, max_words: int
) -> list[list[ToxicWord]]:
    """The rows of each completion: its own words if it is toxic, then, for a prompt's first one, the prompt's.

    Args:
        completions: those made elsewhere have no token ids; their words have no tokens.
        judge: the grader that is asked about parts of the texts.
        pieces: asked for texts with words only.
        prompts: are the prompts' words wanted?
        max_words: longer texts have no rows.
    """
    own = locate([c.completion for c in completions], judge, always=False, max_words=max_words)
    asked = [i for i, c in enumerate(completions) if prompts and c.sample_index == 0]
    of_prompt = dict(
        zip(asked, locate([completions[i].prompt for i in asked], judge, max_words=max_words), strict=True)
    )
    found = []
    for i, completion in enumerate(completions):
        rows = _rows(completion, own[i], pieces, source="own")
        found.append(rows + (_rows(completion, of_prompt[i], pieces, source="prompt") if i in of_prompt else []))
    return found


def same_word(word: str) -> str:
    """Equal for a word and its plural in `s`, in any case: is `Zorgons` the prompt's `zorgon`?"""
    return word.casefold().removesuffix("s")


def _rows(c: Completion, located: Located, pieces: Pieces, *, source: str) -> list[ToxicWord]:
    if not located.words:
        return []
    is_own = source == "own"
    spans = token_spans(
        c.completion if is_own else c.prompt,
        [w.word for w in located.words],
        pieces(c.completion_ids if is_own else c.prompt_ids),
        is_template=None if is_own else c.prompt_token_is_template,
    )
    said = {same_word(word.text) for word in words_in(c.prompt)}
    return [
        ToxicWord(
            prompt_id=c.prompt_id,
            sample_index=c.sample_index,
            text_source=source,
            toxicity=located.toxicity,
            word_index=k,
            word=w.word.text,
            first_token=span and span.first,
            last_token=span and span.last,
            drop=w.drop,
            in_minimal=w.in_minimal,
            is_onset=w.is_onset,
            is_copied=same_word(w.word.text) in said if is_own else None,
        )
        for k, (w, span) in enumerate(zip(located.words, spans, strict=True))
    ]
