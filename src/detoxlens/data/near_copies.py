"""Texts that nearly stand in others: by the word 5-grams that they share. Pure functions.

"zorgons are dumb fools who sing"     zorgons are dumb fools who | are dumb fools who sing
a near copy where at least half of its 5-grams stand in some training turn; one of fewer words where all of it does
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NUM_WORDS = 5
SHARE = 0.5
_WORD = re.compile(r"\w+")


def word_ngrams(text: str) -> set[tuple[str, ...]]:
    """The word 5-grams of `text`, casefolded and without punctuation; the whole of a shorter one."""
    words = _WORD.findall(text.casefold())
    return {tuple(words[i : i + NUM_WORDS]) for i in range(max(1, len(words) - NUM_WORDS + 1))} if words else set()


def num_near_copies(texts: Iterable[str], others: Iterable[str]) -> int:
    """How many of `texts` have at least half of their word 5-grams in `others`."""
    seen: set[tuple[str, ...]] = set()
    for other in others:
        seen |= word_ngrams(other)
    found = (word_ngrams(text) for text in texts)
    return sum(bool(grams) and len(grams & seen) >= SHARE * len(grams) for grams in found)
