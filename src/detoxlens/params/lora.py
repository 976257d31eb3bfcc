"""Params section `lora`: the adapters. Hu et al. 2021 (arXiv 2106.09685)."""

from __future__ import annotations

from pydantic import Field

from detoxlens.params.section import Section


class LoraConfig(Section):
    """Params section `lora`. The authors: r=64, alpha=32, dropout .05 on the attention projections."""

    r: int = Field(ge=1)
    """Rank of the update."""
    alpha: float = Field(gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(ge=0, lt=1)
    target_modules: list[str] = Field(min_length=1)
    """Names (or dotted suffixes) of the linear layers that get an adapter."""
