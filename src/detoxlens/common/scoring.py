"""The protocol of scorers: texts in, one verdict per text out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class ScoredText:
    """ScoredText(toxicity=0.93, status="ok", truncated=False, error="")"""

    toxicity: float | None
    """0..1, or None unless status is ok."""
    status: Literal["ok", "empty", "failed"]
    """`empty`: nothing but white space; `failed`: `error` says why."""
    truncated: bool
    """Only the text's beginning was read."""
    error: str


Source = Literal["classifier", "package", "file", "service"]
"""Who gives the verdict: a Hugging Face classifier, a Python package, a file of scores, a remote service.

The first two compute it here, so that the stage `score` keeps it batch by batch; of the others it is kept already, in
the file or in the cache of answers.
"""
Keys = Sequence[tuple[str, int]]
"""(prompt_id, sample_index) of each text."""


class Scorer(Protocol):
    """A grader of texts."""

    name: str
    """As in params: `profanity_check`, `hf:owner/name@revision`."""
    version: str
    """First 16 hex digits of the weights' sha256."""
    label: str
    """What `toxicity` is the probability of, in the scorer's own words."""
    activation: str
    source: Source

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order; only a file that is matched by prompt needs `keys`."""


class CachedService(Scorer, Protocol):
    """A scorer whose `source` is "service": its answers are cached, and several processes may ask it."""

    def divide_pace(self, num_processes: int) -> None:
        """Asks so much less often that `num_processes` of them together keep the pace that the one key is given."""

    def known(self, texts: Sequence[str]) -> dict[str, ScoredText]:
        """The verdicts that the cache holds, by text."""


def text_sha256(text: str) -> str:
    """64 hex digits; a lone surrogate, which UTF-8 has no bytes for, counts too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
