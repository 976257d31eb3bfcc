"""What a scorer is: texts in, one verdict per text out."""

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


class Scorer(Protocol):
    """A grader of texts."""

    name: str
    """As in params: `profanity_check`, `hf:owner/name@revision`."""
    version: str
    """First 16 hex digits of the weights' sha256."""
    label: str
    """What `toxicity` is the probability of, in the scorer's own words."""
    activation: str

    def score(self, texts: Sequence[str]) -> list[ScoredText]:
        """One verdict per text, in their order."""


def text_sha256(text: str) -> str:
    """64 hex digits; a lone surrogate, which UTF-8 has no bytes for, counts too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
