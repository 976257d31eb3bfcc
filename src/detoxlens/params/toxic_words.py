"""Params section `toxic_words`: which words are toxic, and whether the model uses the prompt otherwise there."""

from __future__ import annotations

from pydantic import Field, field_validator

from detoxlens.params.section import Section

NOT_LOCAL = ("perspective", "openai_moderation", "recorded")
"""Kinds of scorers that cannot be asked about parts of texts: services and files."""


class ToxicWordsConfig(Section):
    """Toxic words are found by grading a text many times, each time without some of its words."""

    scorer: str | None = Field(default=None, min_length=1)
    """A scorer that works on this machine (`profanity_check`, `hf:...`, `onnx:...`). None is `toxicity.headline`; where
    that is a service or a file, no toxic words are found, and the report says so."""
    max_words: int = Field(ge=0)
    """Of longer texts no word is asked about: the number of gradings grows with it. 0 asks about no text at all."""
    num_draws: int = Field(ge=100)
    """Of every null distribution; the smallest p that can be shown is 1 / (num_draws + 1)."""
    seed: int = Field(ge=0)
    """Of the null distributions."""
    max_lag: int = Field(ge=1)
    """Generated tokens (or words) before and after the onset that the event study shows."""
    min_toxic: int = Field(ge=2)
    """Toxic completions of base below which a number is left out, with the reason."""

    @field_validator("scorer")
    @classmethod
    def _is_local(cls, name: str | None) -> str | None:
        if name is not None and not is_local(name):
            raise ValueError(
                "a service or a file cannot be asked about parts of texts; name profanity_check, hf:... or onnx:..., "
                "or write null"
            )
        return name

    def located_by(self, headline: str) -> str | None:
        """The scorer that is asked, given `toxicity.headline`; None where none is."""
        name = self.scorer or headline
        return name if self.max_words and is_local(name) else None


def is_local(scorer: str) -> bool:
    """Does the scorer of this name compute its verdicts here?"""
    return scorer.partition(":")[0] not in NOT_LOCAL
