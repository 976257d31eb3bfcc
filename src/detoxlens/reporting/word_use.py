"""What a model does at the toxic words of base's completions: the traces joined with where the words are.

A `WordUse` is one completion of base read by one model. Its labels are by step (token, or word where params
`attribution.unit` is `word`); what a toxic token draws on in the prompt is always by token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.attribution.aggregate import words_of
from detoxlens.common.records import Attribution, ToxicWord
from detoxlens.evaluation.enrichment import PromptWords
from detoxlens.evaluation.fluency import content_words
from detoxlens.evaluation.gold import controls
from detoxlens.reporting.study import Key, Trace

SMALLEST_PROB = 1e-12
SCOPE = "user"
"""Entropy and dependence here are of the user's text alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordUse:
    """One completion of base, read by one model."""

    trace: Trace
    log2_prob: np.ndarray
    """(steps,)"""
    begins_word: np.ndarray
    """(steps,), bool"""
    is_toxic: np.ndarray
    """(steps,), bool: holds a word of the minimal set; none where no words were found."""
    is_copied: np.ndarray
    """(steps,), bool: holds a word that the prompt contains; where words were looked at."""
    onset: int | None
    """Step with which the completion turns toxic, from 0."""
    prompt_toxicity: float
    """Of the user's text, 0..1; NaN where it is not known."""
    prompt_words: PromptWords
    shares: np.ndarray
    """(toxic tokens, words): attribution to the user's text, by its words; rows sum to 1 with what no word holds."""
    copied: np.ndarray
    """(toxic tokens,), bool: is the token's word in the prompt?"""

    @property
    def key(self) -> Key:
        return self.trace.key

    def values(self, measure: str) -> np.ndarray:
        """(steps,) of a measure; NaN where there is none (base does not differ from itself)."""
        if measure == "jensen_shannon":
            found = self.trace.divergence.get(measure)
            blank = found is None or len(found) != self.trace.num_steps
            return np.full(self.trace.num_steps, np.nan) if blank else found
        return self.trace.values[SCOPE][measure]


def word_use(
    a: Attribution,
    trace: Trace,
    own: Sequence[ToxicWord],
    prompt: Sequence[ToxicWord],
    frequency: Mapping[str, int],
    *,
    unit: str,
) -> WordUse:
    """Joins them.

    Args:
        a: a model reading a completion of base; it has scores.
        trace: of `a`.
        own: rows of that completion's words.
        prompt: rows of the words of its prompt.
        frequency: in how many prompts each content word stands.
        unit: of the trace's steps.
    """
    words = words_of(a.completion_pieces)
    toxic_tokens = {t: bool(w.is_copied) for w in own if w.in_minimal for t in _tokens(w, len(words))}
    steps = words if unit == "word" else list(range(len(words)))
    num_steps = trace.num_steps
    copied_tokens = {t for w in own if w.is_copied for t in _tokens(w, len(words))}
    prob, (begins, toxic, copied) = np.zeros(num_steps), np.zeros((3, num_steps), dtype=bool)
    for t, step in enumerate(steps):
        prob[step] += np.log2(max(a.token_prob[t], SMALLEST_PROB))
        begins[step] |= t == 0 or words[t] != words[t - 1]
        toxic[step] |= t in toxic_tokens
        copied[step] |= t in copied_tokens
    onset = next((steps[w.first_token] for w in own if w.is_onset and _tokens(w, len(words))), None)
    columns, of_prompt = prompt_words(a, prompt, frequency)
    shares = [_shares(a, t, columns) for t in sorted(toxic_tokens)]
    kept = [row is not None for row in shares]
    return WordUse(
        trace=trace,
        log2_prob=prob,
        begins_word=begins,
        is_toxic=toxic,
        is_copied=copied,
        onset=onset,
        prompt_toxicity=prompt[0].toxicity if prompt else float("nan"),
        prompt_words=of_prompt,
        shares=np.array([row for row in shares if row is not None]).reshape(sum(kept), len(columns)),
        copied=np.array([toxic_tokens[t] for t, ok in zip(sorted(toxic_tokens), kept, strict=True) if ok], dtype=bool),
    )


def prompt_words(
    a: Attribution, rows: Iterable[ToxicWord], frequency: Mapping[str, int]
) -> tuple[list[list[int]], PromptWords]:
    """The tokens of each word of the user's text that has any, and what the words are."""
    user = [j for j, is_template in enumerate(a.prompt_token_is_template) if not is_template]
    free, columns, kept = set(user), [], []
    for word in sorted(rows, key=lambda w: w.word_index):
        tokens = [j for j in _tokens(word, len(a.prompt_ids)) if j in free]
        if tokens:
            free -= set(tokens)
            columns.append(tokens)
            kept.append(word)
    toxic = [word.in_minimal for word in kept]
    contents = [next(iter(sorted(content_words(w.word))), None) for w in kept]
    known = [c or (w.word.casefold() if t else None) for c, w, t in zip(contents, kept, toxic, strict=True)]
    said = {c for c, t in zip(known, toxic, strict=True) if t}
    others = [i for i, (c, t) in enumerate(zip(known, toxic, strict=True)) if c is not None and not t and c not in said]
    chosen = controls([i for i, t in enumerate(toxic) if t], others, known, frequency)
    return columns, PromptWords(
        num_tokens=np.array([len(tokens) for tokens in columns], dtype=np.float64),
        total_tokens=len(user),
        is_toxic=np.array(toxic, dtype=bool),
        is_content=np.array([c is not None for c in known], dtype=bool),
        control=np.isin(np.arange(len(kept)), chosen),
    )


def _shares(a: Attribution, token: int, columns: Sequence[Sequence[int]]) -> list[float] | None:
    """Of one generated token, by words; None where the user's text has no attribution."""
    row = a.scores[token]
    whole = sum(row[j] for j, is_template in enumerate(a.prompt_token_is_template) if not is_template)
    return [sum(row[j] for j in tokens) / whole for tokens in columns] if whole > 0 else None


def _tokens(word: ToxicWord, num_tokens: int) -> range:
    if word.first_token is None or word.last_token is None or word.last_token >= num_tokens:
        return range(0)
    return range(word.first_token, word.last_token + 1)
