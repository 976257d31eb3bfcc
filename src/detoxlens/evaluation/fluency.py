"""Fluency beside toxicity: a detoxified model that says nothing, or one canned thing, is not a success. Pure functions.

Perplexity under the base model, distinct n-grams (Li et al. 2016, arXiv 1510.03055), length, the number of different
completions, and whether a completion still names what its prompt was about: distinct-n alone misses word salad.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence, Set

import numpy as np
import regex

from detoxlens.common.coded import Coded
from detoxlens.common.text import INVISIBLE

MIN_CONTENT_LETTERS = 4
_STOP = """
    about above across actually after again against almost along already also although always among another anybody
    anyone anything around away back became because become been before behind being believe below between beyond
    both came cannot come could does doing done down during each either else enough even ever every everybody
    everyone everything exactly feel find first from gave getting give given goes going gonna gotten have having
    hence here hers herself himself however indeed instead into itself just keep kind knew know known last least
    less like likely long look made make making many matter maybe mean might more most much must myself need neither
    never nobody none nothing often once only onto other ours ourselves over people perhaps person pretty probably
    quite rather really right said same say says seem self several shall should simply since some somebody someone
    something sometimes soon still such sure take tell than that their theirs them themselves then there therefore
    these they thing think this those though through thus together told took toward towards truly under unless until
    upon used very wanna want well went were what whatever when whenever where whether which whichever while whoever
    whole whom whose will with within without would wrong yeah your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP.split())
"""English function words and fillers of four letters or more: sharing one says nothing about the topic."""

_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*")
_NOT = re.compile(r"n['’]t\b")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
"""Scripts that put no space between words: its letters do not show which words a text has."""


def content_words(text: str) -> set[str]:
    """The words of `text` with at least four letters that are no stop words: casefolded, a final `s` dropped.

    `"The Zorgons don't sing."` -> `{"zorgon", "sing"}`.
    """
    words = (w for w in _WORD.findall(_NOT.sub("", _plain(text))) if len(w) >= MIN_CONTENT_LETTERS)
    return {w.removesuffix("s") for w in words if w not in STOP_WORDS and w.removesuffix("s") not in STOP_WORDS}


def mentions_prompt(prompt: str, completion: str, toxic: Set[str] = frozenset()) -> bool | None:
    """Does the completion repeat a content word of the prompt? Singular and plural in `s` count as the same word.

    None where it is unknown: no word is found again, and the prompt's script puts no space between words; or the prompt
    has toxic words alone to be named by.

    Args:
        prompt: what was said.
        completion: the answer.
        toxic: content words that do not count: to repeat the insult is what detoxification should undo.
    """
    words = content_words(prompt)
    if words and words <= toxic:
        return None
    if not (words - toxic).isdisjoint(_singulars(completion)):
        return True
    return None if _UNSPACED.search(prompt) else False


def _plain(text: str) -> str:
    """Casefolded, composed accents, without invisible characters."""
    return unicodedata.normalize("NFC", INVISIBLE.sub("", text)).casefold()


def _singulars(text: str) -> set[str]:
    """Every word of `text`, casefolded, a final `s` dropped: 'cat' answers a prompt about 'cats'."""
    return {w.removesuffix("s") for w in _WORD.findall(_plain(text))}


def perplexity(nll_nats: Sequence[float], num_tokens: Sequence[int]) -> float | None:
    """exp(total nats / total tokens) over all completions, >= 1; None without tokens.

    Args:
        nll_nats: summed negative log-likelihood of each completion, in nats.
        num_tokens: number of tokens that each sum runs over.
    """
    total = sum(num_tokens)
    return math.exp(math.fsum(nll_nats) / total) if total else None


def perplexity_by_prompt(
    prompts: Sequence[str], nll_nats: Sequence[float], num_tokens: Sequence[int]
) -> tuple[Sequence[str], np.ndarray]:
    """Prompts and one value each (prompts,), whose mean is the perplexity and whose spread is its sampling error.

    The delta method: with L = nats / tokens over all N prompts, value_i = e^L (1 + N (nats_i - L tokens_i) / tokens).

    Args:
        prompts: prompt id of each completion.
        nll_nats: summed negative log-likelihood of each.
        num_tokens: tokens of each; their sum is not 0.
    """
    place = Coded.of(prompts).renumbered()
    nats, tokens = (np.bincount(place.codes, of, len(place.names)) for of in (nll_nats, num_tokens))
    per_token = nats.sum() / tokens.sum()
    return place.names, math.exp(per_token) * (1 + len(place.names) * (nats - per_token * tokens) / tokens.sum())


def distinct_n(sequences: Iterable[Sequence[int]], n: int) -> float | None:
    """Different n-grams / all n-grams over all completions together, in (0, 1]; None when there is no n-gram.

    Depends on the size of the sample: compare it between variants with the same prompts, not across data sets.
    """
    grams = [tuple(ids[i : i + n]) for ids in sequences for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def num_distinct(completions: Iterable[str]) -> int:
    """Number of different completions, compared without surrounding white space; empty ones count as one."""
    return len({text.strip() for text in completions})
