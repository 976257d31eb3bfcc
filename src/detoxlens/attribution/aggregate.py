"""From subword tokens to words and to regions of the prompt. Pure functions; rows still sum to 1 afterwards.

tokens   ` Zor` `gons` ` play`          words  0 0 1          scores  .1 .3 .6  ->  .4 .6
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def words_of(pieces: Sequence[str], regions: Sequence[Hashable] | None = None) -> list[int]:
    """The number of the word that each token belongs to.

    Args:
        pieces: the text of each token, e.g. `tokenizer.decode([id])` for each id. A token begins a word when it begins
            with white space (also written as byte-level BPE and SentencePiece do), or follows a line break.
        regions: of each token, where there are several: a word ends where the region changes, so that no word is half
            the template's (`"Zorgons` is two words when the quotation mark belongs to the template).
    """
    words, word = [], -1
    for i, piece in enumerate(pieces):
        begins = piece.startswith(("Ġ", "Ċ", "▁")) or piece[:1].isspace()
        begins = begins or (i > 0 and pieces[i - 1].endswith(("\n", "Ċ")))
        crosses = regions is not None and i > 0 and regions[i] != regions[i - 1]
        word += 1 if i == 0 or begins or crosses else 0
        words.append(word)
    return words


def grouped(values: Sequence[T], words: Sequence[int]) -> list[list[T]]:
    """The values of each word's tokens."""
    groups: list[list[T]] = [[] for _ in range(words[-1] + 1 if words else 0)]
    for value, word in zip(values, words, strict=True):
        groups[word].append(value)
    return groups


def to_words(
    scores: Sequence[Sequence[float]], prompt_words: Sequence[int], completion_words: Sequence[int]
) -> list[list[float]]:
    """Scores between words: summed over the subwords of an input word, averaged over those of a generated word.

    What the later subwords of a word owe to its earlier ones stays, as the word's attribution to itself: nothing is
    dropped, and a row of scores that sums to 1 becomes rows that do. Inseq's SubwordAggregator keeps that cell too (it
    takes one function, by default the largest, for both directions; sums over both are these times the generated
    word's number of subwords).

    Args:
        scores: row t over prompt and generated prefix.
        prompt_words: word number per prompt token, from 0.
        completion_words: word number per generated token, from 0.

    Returns:
        Row w over the prompt's words, the w generated words before, and generated word w itself.
    """
    num_prompt_words = prompt_words[-1] + 1
    columns = [*prompt_words, *(num_prompt_words + w for w in completion_words)]
    words = [[0.0] * (num_prompt_words + w + 1) for w in range(completion_words[-1] + 1)]
    for t, row in enumerate(scores):
        word = completion_words[t]
        for column, score in zip(columns, row, strict=False):  # a row ends before the token it is about
            words[word][column] += score / completion_words.count(word)
    return words


def region_mass(scores: np.ndarray, regions: Sequence[Hashable], *, generated: Hashable = "generated") -> dict:
    """Attribution mass per region, (steps,) each, 0..1, in order of appearance; what follows the prompt is `generated`.

    Args:
        scores: (steps, prompt + steps), from `entropy.padded`.
        regions: region of each prompt token, e.g. `EncodedPrompt.regions` (template, user, earlier).
        generated: the name for the generated prefix.
    """
    members: dict[Hashable, list[int]] = {}
    for column, label in enumerate([*regions, *[generated] * (scores.shape[1] - len(regions))]):
        members.setdefault(label, []).append(column)
    return {label: scores[:, columns].sum(1) for label, columns in members.items()}
