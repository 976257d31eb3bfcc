"""Params section `steering`: a direction added to hidden states (`models.interventions.steering`)."""

from __future__ import annotations

from pydantic import Field

from detoxlens.params.section import Section


class SteeringConfig(Section):
    """Where and how far a variant of kind `steering` is moved; found by `detoxlens sweep --method steering`."""

    layer: int = Field(ge=0)
    """The decoder layer, from 0, behind which is added."""
    strength: float = Field(allow_inf_nan=False)
    """Multiple of the difference between the mean civil and the mean hostile reply; 0 is the base model, below 0 is
    the other way."""
    max_replies: int = Field(ge=1)
    """Most replies of each kind, of the training dialogues, that the means are taken over."""
