"""Which pieces of an `Explanation` are toxic words: those without which a text is not toxic to a local scorer.

prompt "Zorgons are idiots"  pieces  ` Zor` `gons` ` are` ` id` `iots`   ->  toxic_prompt {3, 4}
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.evaluation.toxic_words import Judge, LocalJudge, Word, locate
from detoxlens.evaluation.word_tokens import token_spans
from detoxlens.explain.explanation import Explanation
from detoxlens.params.load import Params
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.scorers import make_scorer

DEFAULT = "profanity_check"
"""Outside a project: the grader that comes with the package."""


class Marker:
    """Marks toxic words; of several explanations of one text it asks the scorer once."""

    def __init__(self, scorer: str, judge: Judge, *, max_words: int | None = None) -> None:
        """Takes the scorer's name, its verdicts on texts (0..1), and how many words a text may have."""
        self._scorer, self._judge, self._max_words = scorer, judge, max_words

    def marked(self, explanation: Explanation, prompt: str) -> Explanation:
        """The explanation, of tokens, with its toxic words.

        Args:
            explanation: any.
            prompt: the user's text alone, without the template.

        Raises:
            UserError: the scorer cannot be loaded.
        """
        completion = explanation.completion
        with _optional(self._scorer):
            of_prompt, of_completion = locate([prompt, completion], self._judge, max_words=self._max_words)
        return dataclasses.replace(
            explanation,
            toxic_prompt=_tokens(prompt, of_prompt.toxic_words, explanation.prompt_pieces, explanation.is_template),
            toxic_completion=_tokens(completion, of_completion.toxic_words, explanation.completion_pieces),
            marked_by=self._scorer,
        )


def marker(root: Path, params: Params | None) -> Marker | None:
    """By the project's grader, or `toxic_words.scorer`; None where that is a service or a file.

    Args:
        root: project root.
        params: of the project; None outside of one.

    Raises:
        UserError: there is no such scorer.
    """
    name, normalize, max_words = DEFAULT, True, None
    if params is not None:
        toxicity, words = params.section("toxicity", ToxicityConfig), params.section("toxic_words", ToxicWordsConfig)
        name, normalize, max_words = words.located_by(toxicity.headline), toxicity.normalize, words.max_words
    if name is None:
        return None
    with _optional(name):
        return Marker(name, LocalJudge(make_scorer(name, root=root, normalize=normalize)), max_words=max_words)


@contextlib.contextmanager
def _optional(scorer: str) -> Iterator[None]:
    """Says of the scorer's errors what it was wanted for, and how to do without."""
    try:
        yield
    except UserError as e:
        raise UserError(f"Toxic words are marked by {scorer}: {e} Or leave them: --no-toxic-words.") from None


def _tokens(
    text: str, words: Sequence[Word], pieces: Sequence[str], is_template: Sequence[bool] | None = None
) -> frozenset[int]:
    spans = token_spans(text, words, pieces, is_template=is_template)
    return frozenset(token for span in spans if span is not None for token in range(span.first, span.last + 1))
