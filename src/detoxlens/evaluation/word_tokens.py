"""Words of a text <-> tokens of a model, by the characters that each covers. Pure; works for any tokenizer.

    text     "Zorgons are idiots."       tokens   ` Zor` `gons` ` are` ` id` `iots` `.`
    word     idiots = characters 12..18            3 ` id` and 4 `iots`: first token 3, last token 4

A token's text is what decoding adds with it (`attribution.pieces`), so no tokenizer has to give offsets.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from detoxlens.evaluation.toxic_words import Judge, Word, locate, words_in


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The tokens first..last, last included: TokenSpan(first=3, last=4)."""

    first: int
    last: int


def toxic_prompt_tokens(
    prompts: Sequence[str], pieces: Sequence[Sequence[str]], is_template: Sequence[Sequence[bool]], judge: Judge
) -> list[tuple[TokenSpan, ...]]:
    """The toxic words of each prompt as spans of its tokens: the minimal sets; () of a prompt that is not toxic.

    Args:
        prompts: the users' texts alone.
        pieces: the text of each token of the prompts as the model reads them, template included.
        is_template: per token, whether it is the template's.
        judge: a local grader, `toxic_words.LocalJudge(make_scorer("profanity_check", ...))`.
    """
    found = []
    for prompt, of, template, located in zip(prompts, pieces, is_template, locate(prompts, judge), strict=True):
        spans = token_spans(prompt, located.toxic_words, of, is_template=template)
        found.append(tuple(span for span in spans if span is not None))
    return found


def token_spans(
    text: str, words: Sequence[Word], pieces: Sequence[str], *, is_template: Sequence[bool] | None = None
) -> list[TokenSpan | None]:
    """The tokens that each of `words` is made of; a token that holds more than the word counts too.

    Where the tokens do not spell `text` as it is (normalised, or cut), its words are sought among theirs in order.

    Args:
        text: which the words are of.
        words: in their order, some or all.
        pieces: the text of each token.
        is_template: tokens that are not the text's; None: all are.

    Returns:
        None for a word that the tokens do not hold.
    """
    whole, ends = "".join(pieces), list(itertools.accumulate(map(len, pieces)))
    starts = [0, *ends[:-1]]
    own = [j for j in range(len(pieces)) if is_template is None or not is_template[j]]
    if not own:
        return [None] * len(words)
    begin, end = starts[own[0]], ends[own[-1]]
    at = whole.find(text, max(0, begin - 1))  # the template's last token may hold the space before the text
    if text and at >= 0 and at + len(text) <= end + 1:
        places = [(at + word.start, at + word.stop) for word in words]
    else:
        places = _in_order(text, words, whole[begin:end], begin)
    return [None if place is None else _span(*place, starts, ends) for place in places]


def _in_order(text: str, words: Sequence[Word], spelt: str, begin: int) -> list[tuple[int, int] | None]:
    """Where each word stands in what the tokens spell; the longest runs of equal words are taken for each other."""
    said, read = words_in(text), words_in(spelt)
    pair = [w.text.casefold() for w in said], [w.text.casefold() for w in read]
    partner = {}
    for block in difflib.SequenceMatcher(None, *pair, autojunk=False).get_matching_blocks():
        partner |= {said[block.a + k]: read[block.b + k] for k in range(block.size)}
    return [
        None if (there := partner.get(word)) is None else (begin + there.start, begin + there.stop) for word in words
    ]


def _span(start: int, stop: int, starts: Sequence[int], ends: Sequence[int]) -> TokenSpan | None:
    """A token without text (the first bytes of a character) belongs to what follows it."""
    inside = [
        j
        for j, (begin, end) in enumerate(zip(starts, ends, strict=True))
        if (begin < stop and end > start) or (begin == end and start <= begin < stop)
    ]
    return TokenSpan(inside[0], inside[-1]) if inside else None
