"""Which words make a text toxic, by asking a grader about parts of it. Pure but for the grader that is asked.

    text      "You stupid people are idiots"     .93 toxic
    drop      of a word: toxicity of the text - toxicity without the word (Li et al. 2016, arXiv 1612.08220)
    minimal   words without which the text is not toxic, and with any one of which put back it is
    onset     the first word with which the text so far is toxic

Two insults of which each suffices have a drop of nearly 0 both: the minimal set, found by removing the word that lowers
the toxicity most until the text is no longer toxic, holds them. All texts are asked about together, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import regex

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Scorer
from detoxlens.evaluation.toxicity import TOXIC

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_LETTER = rf"[\p{{L}}\p{{M}}\p{{N}}--[{_UNSPACED}]]"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|{_LETTER}+(?:['’*$@-]+{_LETTER}+)*[$*]*", regex.V1)
_SPACE = regex.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, without the punctuation around it: Word(text="stupid", start=4, stop=10)."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWord:
    """What a word does to its text's toxicity."""

    word: Word
    drop: float | None
    """-1..1; None where the grader failed on the text without it."""
    in_minimal: bool
    is_onset: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A text with its words: Located(toxicity=.93, words=(JudgedWord(...), ...))."""

    toxicity: float | None
    """0..1 by the grader that was asked; None where it failed."""
    words: tuple[JudgedWord, ...]
    """All of them in their order; empty where they were not asked about."""

    @property
    def is_toxic(self) -> bool:
        return self.toxicity is not None and self.toxicity > TOXIC

    @property
    def toxic_words(self) -> tuple[Word, ...]:
        """The minimal set."""
        return tuple(w.word for w in self.words if w.in_minimal)


Judge = Callable[[Sequence[str]], Sequence[float | None]]
"""Texts -> toxicity 0..1 of each; None where it failed."""


class LocalJudge:
    """A scorer as a `Judge`: every text is asked about once, and nothing is no insult (an empty text has 0)."""

    def __init__(self, scorer: Scorer) -> None:
        """Takes a loaded scorer.

        Raises:
            UserError: it is a service or a file, which cannot be asked about parts of texts.
        """
        if not can_judge_parts(scorer):
            raise UserError(
                f"toxic_words.scorer: {scorer.name} is a {scorer.source}; toxic words are found by grading every text "
                "many times over without one word or another. Name a scorer that works here: profanity_check, hf:... "
                "or onnx:..."
            )
        self._scorer = scorer
        self._known: dict[str, float | None] = {}

    def __call__(self, texts: Sequence[str]) -> list[float | None]:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for text, verdict in zip(new, self._scorer.score(new) if new else [], strict=True):
            self._known[text] = 0.0 if verdict.status == "empty" else verdict.toxicity
        return [self._known[text] for text in texts]


def can_judge_parts(scorer: Scorer) -> bool:
    """Does the scorer compute its verdicts here, so that thousands of them cost nothing but time?"""
    return scorer.source in ("classifier", "package")


def words_in(text: str) -> list[Word]:
    """The words of `text`: letters and digits, joined by apostrophes, hyphens and the signs that mask letters (`a$$`).

    Of scripts without spaces every character is a word.
    """
    return [Word(match[0], *match.span()) for match in _WORD.finditer(text)]


def without(text: str, words: Iterable[Word]) -> str:
    """`text` without some of its words, each with the white space before it (of the first, that behind it)."""
    kept, end = [], 0
    for word in words:
        kept.append(text[end : word.start])
        end = word.stop
    rest = [kept[0], *(part if part.strip() else "" for part in kept[1:]), text[end:]] if kept else [text]
    return _SPACE.sub(" ", "".join(rest)).strip() if kept else text


def locate(texts: Sequence[str], judge: Judge, *, always: bool = True, max_words: int | None = None) -> list[Located]:
    """The words of each text with what they do to its toxicity.

    Args:
        texts: asked about together, in rounds, since a round depends on the one before.
        judge: the grader; a text that comes up again should cost nothing (`LocalJudge`).
        always: ask for the drops of texts that are not toxic, too.
        max_words: of a longer text no word is asked about; None asks about all.

    Returns:
        One per text, in their order. A text without a minimal set (it is toxic without any word) has no word in it.
    """
    toxicities = list(judge(texts))
    found = [words_in(text) for text in texts]
    asked = [
        i
        for i, (toxicity, words) in enumerate(zip(toxicities, found, strict=True))
        if toxicity is not None and (always or toxicity > TOXIC) and (max_words is None or len(words) <= max_words)
    ]
    toxic = [i for i in asked if toxicities[i] > TOXIC]
    left_out = _ask(judge, {i: [without(texts[i], [word]) for word in found[i]] for i in asked})
    so_far = _ask(judge, {i: [texts[i][: word.stop] for word in found[i]] for i in toxic})
    minimal = _minimal_sets({i: texts[i] for i in toxic}, found, judge)
    onset = {i: _first_above(of) for i, of in so_far.items()}
    return [
        Located(
            toxicity=toxicity,
            words=tuple(
                JudgedWord(
                    word=word,
                    drop=None if rest is None else toxicity - rest,
                    in_minimal=k in minimal.get(i, ()),
                    is_onset=k == onset.get(i),
                )
                for k, (word, rest) in enumerate(zip(found[i], left_out.get(i, ()), strict=False))
            ),
        )
        for i, toxicity in enumerate(toxicities)
    ]


def _minimal_sets(texts: dict[int, str], words: Sequence[Sequence[Word]], judge: Judge) -> dict[int, frozenset[int]]:
    """Text -> numbers of the words in its minimal set; none for a text that is toxic without any word."""

    def rest(i: int, gone: Collection[int]) -> str:
        return without(texts[i], [words[i][k] for k in sorted(gone)])

    gone: dict[int, list[int]] = {i: [] for i in texts}
    unfinished, done = list(texts), []
    while unfinished:
        choices = {i: [k for k in range(len(words[i])) if k not in gone[i]] for i in unfinished}
        verdicts = _ask(judge, {i: [rest(i, [*gone[i], k]) for k in choices[i]] for i in unfinished})
        still = []
        for i in unfinished:
            options = [(v, k) for v, k in zip(verdicts[i], choices[i], strict=True) if v is not None]
            if not options:
                continue
            toxicity, k = min(options)
            gone[i].append(k)
            (done if toxicity <= TOXIC else still).append(i)
        unfinished = still
    needed = {i: set(gone[i]) for i in done}
    for place in range(max(map(len, needed.values()), default=0)):  # what a later removal made needless is put back
        tried = {i: gone[i][place] for i in done if place < len(gone[i])}
        verdicts = _ask(judge, {i: [rest(i, needed[i] - {k})] for i, k in tried.items()})
        for i, k in tried.items():
            if (toxicity := verdicts[i][0]) is not None and toxicity <= TOXIC:
                needed[i].discard(k)
    return {i: frozenset(of) for i, of in needed.items()}


def _ask(judge: Judge, texts: dict[int, list[str]]) -> dict[int, list[float | None]]:
    """The judge's verdicts on all of these texts, asked at once."""
    verdicts = iter(judge([text for of in texts.values() for text in of]))
    return {i: [next(verdicts) for _ in of] for i, of in texts.items()}


def _first_above(toxicities: Sequence[float | None]) -> int | None:
    return next((k for k, toxicity in enumerate(toxicities) if toxicity is not None and toxicity > TOXIC), None)
