"""Params section `dexperts`: logits of base + alpha (expert - anti-expert) (`models.interventions.dexperts`)."""

from __future__ import annotations

from pydantic import Field

from detoxlens.params.section import Name, Section


class DexpertsConfig(Section):
    """What a variant of kind `dexperts` adds to the base model's logits."""

    expert: Name
    """The trained variant whose logits are added; dvc.yaml names its adapter, so it is one for all models."""
    anti_expert: Name
    """The variant whose logits are taken away; `it` is the base model."""
    alpha: float = Field(allow_inf_nan=False)
    """0 is the base model; with `it` as anti-expert, 1 is the expert (Liu et al. took 2)."""
