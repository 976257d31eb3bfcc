"""Params section `prompt`: a system message (`models.interventions.prompt`)."""

from __future__ import annotations

from pydantic import Field

from detoxlens.params.section import Section


class PromptConfig(Section):
    """What a variant of kind `prompt` puts before each chat."""

    system: str = Field(min_length=1)
    """The system message; written by the model's template (`models.<m>.template`)."""
