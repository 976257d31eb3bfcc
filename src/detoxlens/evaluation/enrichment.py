"""Do toxic tokens draw on the prompt's toxic words more than on its other words? Pure, seeded.

Of a generated toxic token, its attribution to the user's text is shared out among the words there:

    user's words   All   Zorgons   are   idiots      share on the toxic word   .4
    tokens          1       2       1      1         its share of the tokens   1/5       lift = .4 / .2 = 2

lift = mean share / mean share of the tokens, over all toxic tokens; 1: toxic words get what any word of their length
gets. Words with content get more than function words do, so two comparisons are with words with content: with the
non-toxic one of about the same frequency and place (`gold`), and with lifts when which of them are toxic is redrawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.intervals import Estimate, percentile_interval
from detoxlens.evaluation.label_nulls import p_value
from detoxlens.evaluation.stats import resampled_sums
from detoxlens.evaluation.token_contrast import by_prompt
from detoxlens.params.report import Bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptWords:
    """The words of a prompt's user text, each array (words,)."""

    num_tokens: np.ndarray
    """Tokens of each word; a token of two words is the first one's."""
    total_tokens: int
    """Of the user's text, those of no word (punctuation) included."""
    is_toxic: np.ndarray
    """In the prompt's minimal set."""
    is_content: np.ndarray
    """Toxic, or a word with content: what could have been toxic."""
    control: np.ndarray
    """True at the non-toxic words that are compared with the toxic ones; none where there are too few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What the toxic tokens of one completion draw on."""

    prompt: str
    words: PromptWords
    shares: np.ndarray
    """(toxic tokens, words): of the attribution to the user's text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrichment:
    """Enrichment(lift=Estimate(1.3, (1.1, 1.5), 80), p=.002, against_control=Estimate(...), num_tokens=210)."""

    lift: Estimate
    p: float | None
    """By permutation of which of the prompt's words with content are toxic."""
    against_control: Estimate | None
    """Lift minus that of the controls, on the tokens that have a control."""
    num_tokens: int


def enrichment(
    drawings: Sequence[Drawing], bootstrap: Bootstrap, *, num_draws: int, rng: np.random.Generator
) -> Enrichment | None:
    """The enrichment over all toxic tokens; None where no prompt has both toxic and other words."""
    usable = [d for d in drawings if len(d.shares) and d.words.is_toxic.any() and not d.words.is_toxic.all()]
    if not usable:
        return None
    prompts = [d.prompt for d in usable]
    rows = np.array([[*_sums(d, d.words.is_toxic), *_sums(d, d.words.control)] for d in usable])
    sums = by_prompt(prompts, rows[:, :2])
    matched = [i for i, d in enumerate(usable) if d.words.control.any()]
    null = np.zeros((num_draws, 2))
    for d in usable:
        null += _permuted_sums(d, num_draws, rng)
    lift = _ratio(sums, bootstrap, lambda s: s[:, 0] / s[:, 1])
    return Enrichment(
        lift=lift,
        p=p_value(lift.value, null[:, 0] / null[:, 1]),
        against_control=_ratio(
            by_prompt([prompts[i] for i in matched], rows[matched]),
            bootstrap,
            lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3],
        )
        if matched
        else None,
        num_tokens=sum(len(d.shares) for d in usable),
    )


def _sums(d: Drawing, chosen: np.ndarray) -> tuple[float, float]:
    """Share of the chosen words, and their share of the tokens, each summed over the toxic tokens."""
    of_tokens = d.words.num_tokens[chosen].sum() / d.words.total_tokens
    return float(d.shares[:, chosen].sum()), float(len(d.shares) * of_tokens)


def _permuted_sums(d: Drawing, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, 2): `_sums` of as many words with content, drawn at random."""
    content = np.flatnonzero(d.words.is_content)
    num = int(d.words.is_toxic.sum())
    chosen = np.argsort(rng.random((num_draws, len(content))), axis=1)[:, :num]
    share, tokens = d.shares.sum(0)[content], d.words.num_tokens[content] * len(d.shares) / d.words.total_tokens
    return np.column_stack([share[chosen].sum(1), tokens[chosen].sum(1)])


def _ratio(sums: np.ndarray, bootstrap: Bootstrap, statistic) -> Estimate:
    """A statistic of column sums (rows, columns) -> (rows,), with its interval over prompts."""
    n = len(sums)
    value = float(statistic(sums.sum(0)[None])[0])
    if n < 2:
        return Estimate(value, None, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = statistic(resampled_sums(bootstrap, sums))
    return Estimate(value, percentile_interval(draws[np.isfinite(draws)], n), n)
