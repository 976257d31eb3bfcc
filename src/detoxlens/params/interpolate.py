"""Params section `interpolate`: the strengths at which a variant's adapter is applied, and on how many prompts."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, field_validator

from detoxlens.params.section import Name, Section


class InterpolateConfig(Section):
    """How the stage `interpolate` works: the dose, for the variants in `run.interpolated_variants`."""

    alphas: list[float] = Field(min_length=2)
    """Factors of the adapter's update, rising: 0 is base, 1 the variant, below 0 the opposite, above 1 more of it."""
    filter: Name
    """The split of params `splits` whose test prompts are answered."""
    num_prompts: int = Field(ge=2)
    """Prompts answered at each strength, drawn by run.seed: the same ones for every variant."""
    num_attributed: int = Field(ge=0)
    """How many of them are attributed, at each strength but 0: the model reads its own answer and base's, and base
    reads the model's."""

    @field_validator("alphas")
    @classmethod
    def _rises_through_base(cls, alphas: list[float]) -> list[float]:
        if 0 not in alphas:
            raise ValueError("must hold 0: base, at which every path begins")
        if any(later <= sooner for sooner, later in pairwise(alphas)):
            raise ValueError("must rise from one to the next")
        return alphas
