"""From an attribution to what the report measures of it, per generated token or word.

scope      prompt tokens that count
prompt     all of them, the template's too, as the authors had it
user       the user's text alone
no_first   all but the first, on which much attention rests whatever it is (Xiao et al. 2023, arXiv 2309.17453)

method-free (scope `any_method`): prompt_kl_bits, prompt_gain_bits, from predictions alone (`attribution.reliance`)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from detoxlens.attribution.aggregate import grouped, region_mass, to_words, words_of
from detoxlens.attribution.divergence import jensen_shannon_bits, kl_bits
from detoxlens.attribution.entropy import MEASURES, padded
from detoxlens.attribution.ranks import mean_rank_correlation
from detoxlens.common.records import Attribution
from detoxlens.evaluation.fluency import content_words
from detoxlens.evaluation.gold import Ranking, copied_words, rank
from detoxlens.reporting.study import Trace

SCOPES = ("prompt", "user", "no_first")
ANY_METHOD = "any_method"
METHOD_FREE = ("prompt_kl_bits", "prompt_gain_bits")
UNITS = {
    "prompt_entropy_bits": "bits",
    "prompt_entropy_normalized": "fraction",
    "prompt_dependence": "fraction",
    "prompt_dependence_excess_bits": "bits",
    **dict.fromkeys(METHOD_FREE, "bits"),
}
"""Measure -> unit."""
REGIONS = ("template", "user", "generated")
"""Where attribution can lie: the chat template, the user's text (an evaluation prompt is one turn: there are no earlier
ones), what was generated before."""
DIVERGENCES = {"kl": kl_bits, "jensen_shannon": jensen_shannon_bits}
"""How far a variant's scores are from those of `it` on the same text, over all tokens before the one generated."""


def trace_of(
    attribution: Attribution,
    *,
    unit: str = "token",
    weight: float = 1.0,
    it_scores: Sequence[Sequence[float]] | None = None,
    frequency: Mapping[str, int] | None = None,
    headline_scores: Sequence[Sequence[float]] | None = None,
) -> Trace | None:
    """The measures of one attribution; None when it has no scores.

    Args:
        attribution: of one completion.
        unit: `word` merges subwords before anything is measured.
        weight: how many completions it stands for.
        it_scores: those of `it` on the same tokens, to measure the divergence from.
        frequency: in how many prompts each word stands; None leaves the gold test out.
        headline_scores: those of the headline's method, where this one's are by another.
    """
    a = attribution
    if a.scores is None:
        return None
    rows, is_template = a.scores, a.prompt_token_is_template
    method_free = {"prompt_kl_bits": a.prompt_kl_bits, "prompt_gain_bits": a.prompt_gain_bits}
    if unit == "word":
        prompt, completion = words_of(a.prompt_pieces, is_template), words_of(a.completion_pieces)
        rows = to_words(rows, prompt, completion)
        is_template = tuple(word[0] for word in grouped(is_template, prompt))
        method_free = {  # a word's surprise is the sum of its tokens'
            name: of and [sum(word) for word in grouped(of, completion)] for name, of in method_free.items()
        }
    num_prompt = len(is_template)
    scores = padded(rows, num_prompt)
    keeps = {
        "prompt": None,
        "user": [not of_template for of_template in is_template],
        "no_first": [i > 0 for i in range(num_prompt)],
    }
    values: dict[str, dict[str, np.ndarray]] = {
        scope: {name: measure(scores, num_prompt, keep) for name, measure in MEASURES.items()}
        for scope, keep in keeps.items()
    }
    if None not in method_free.values():
        values[ANY_METHOD] = {name: np.array(of) for name, of in method_free.items()}
    mass = region_mass(scores, ["template" if of_template else "user" for of_template in is_template])
    pairs = [] if it_scores is None else list(zip(a.scores, it_scores, strict=True))
    gold, num_unmatched = ((), 0) if frequency is None else gold_rankings(a, frequency)
    return Trace(
        key=(a.prompt_id, a.sample_index),
        reader=a.reader,
        text_source=a.text_source,
        weight=weight,
        values=values,
        regions={region: mass.get(region, np.zeros(len(scores))) for region in REGIONS},
        divergence={name: np.array([of(*pair) for pair in pairs]) for name, of in DIVERGENCES.items() if pairs},
        gold=gold,
        num_unmatched=num_unmatched,
        rank_correlation=headline_scores and mean_rank_correlation(a.scores, headline_scores, len(a.prompt_ids)),
    )


def gold_rankings(
    attribution: Attribution, frequency: Mapping[str, int]
) -> tuple[tuple[tuple[Ranking, Ranking], ...], int]:
    """(cue, control) of each copied word that has a control, and the number of those that have none.

    A word's score is the sum over its tokens, in the row of the copied word's first token.
    """
    a = attribution
    columns = _user_words(a)
    said = grouped(range(len(a.completion_pieces)), words_of(a.completion_pieces))
    copied = copied_words(
        [_content(a.prompt_pieces, word) for word in columns],
        [(word[0], _content(a.completion_pieces, word)) for word in said],
        frequency,
    )
    found = []
    for word in copied:
        scores = [sum(a.scores[word.step][j] for j in tokens) for tokens in columns]
        if word.controls:
            found.append((rank(scores, word.cues), rank(scores, word.controls)))
    return tuple(found), len(copied) - len(found)


def prompt_frequency(attributions: Iterable[Attribution]) -> dict[str, int]:
    """In how many prompts each content word stands."""
    contents = {a.prompt_id: {_content(a.prompt_pieces, word) for word in _user_words(a)} for a in attributions}
    return dict(Counter(word for words in contents.values() for word in words if word is not None))


def _user_words(a: Attribution) -> list[list[int]]:
    """The tokens of each word of the user's text."""
    words = words_of(a.prompt_pieces, a.prompt_token_is_template)
    tokens = grouped(range(len(words)), words)
    return [word for word in tokens if not a.prompt_token_is_template[word[0]]]


def _content(pieces: Sequence[str], tokens: Sequence[int]) -> str | None:
    """The content word that these tokens spell; None for none, or for several (`left-handed`)."""
    words = content_words("".join(pieces[j] for j in tokens))
    return words.pop() if len(words) == 1 else None
