"""Which words tell toxic completions from others: log-odds with an informative Dirichlet prior, z > 2.58 (99 %).

Monroe, Colaresi and Quinn 2008 (10.1093/pan/mpn018), eq. 15, 16 and 22. For a word w with counts y and prior counts a,
n and a0 their sums, t toxic and o other:

    delta_w = log((y_t + a) / (n_t + a0 - y_t - a)) - log((y_o + a) / (n_o + a0 - y_o - a))
    var_w   = 1 / (y_t + a) + 1 / (y_o + a),   z_w = delta_w / sqrt(var_w)

It needs no scorer but its scores, so it works for any grader; it says which words go with toxicity, not which cause it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

from detoxlens.evaluation.fluency import MIN_CONTENT_LETTERS, STOP_WORDS
from detoxlens.evaluation.toxicity import TOXIC

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
Z = 2.58
"""Two-sided 99 %."""


def toxic_words(scored: Iterable[tuple[str, float]]) -> frozenset[str]:
    """The content words, casefolded, that stand out in texts with toxicity > .5.

    Args:
        scored: (text, toxicity); a word counts once per text; function words count nowhere.
    """
    toxic, other = Counter[str](), Counter[str]()
    for text, toxicity in scored:
        (toxic if toxicity > TOXIC else other).update(_content(text))
    both = toxic + other
    if not toxic or not other or len(both) == 1:  # the only word of all texts stands out from none
        return frozenset()
    prior = len(both) / both.total()  # as many prior counts as there are words
    totals = toxic.total() + len(both), other.total() + len(both)
    return frozenset(w for w in both if _z(toxic[w], other[w], prior * both[w], *totals) > Z)


def _content(text: str) -> set[str]:
    words = {word.casefold() for word in WORD.findall(text)}
    return {word for word in words if len(word) >= MIN_CONTENT_LETTERS and word not in STOP_WORDS}


def _z(in_toxic: int, in_other: int, prior: float, total_toxic: float, total_other: float) -> float:
    a, b = in_toxic + prior, in_other + prior
    log_odds = math.log(a / (total_toxic - a)) - math.log(b / (total_other - b))
    return log_odds / math.sqrt(1 / a + 1 / b)


def marked(text: str, words: frozenset[str]) -> list[tuple[str, bool]]:
    """`text` in pieces: (piece, is it one of `words`); joined they are `text`."""
    pieces, end = [], 0
    for match in WORD.finditer(text):
        if match[0].casefold() in words:
            pieces += [(text[end : match.start()], False), (match[0], True)]
            end = match.end()
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]
