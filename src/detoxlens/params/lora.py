"""Params section `lora`: the adapters. Hu et al. 2021 (arXiv 2106.09685)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detoxlens.params.section import Section


class LoraConfig(Section):
    """Params section `lora`. The authors: r=64, alpha=32, dropout .05 on the attention projections."""

    r: int = Field(ge=1)
    """Rank of the update."""
    alpha: float = Field(gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(ge=0, lt=1)
    """Share of the inputs of the adapter that is dropped in training, 0..1."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)]
    """Names (or dotted suffixes) of the linear layers that get an adapter; `all-linear`: all but the output layer."""

    @property
    def where(self) -> str:
        """The layers, for a reader: `query_key_value, dense`."""
        if isinstance(self.target_modules, str):
            return "all linear layers but the output layer"
        return ", ".join(sorted(self.target_modules))
