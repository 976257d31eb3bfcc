"""How intervals are drawn (params key `report.bootstrap`)."""

from __future__ import annotations

from pydantic import Field

from detoxlens.config import Section


class Bootstrap(Section):
    """Draws of prompts behind every 95 % interval: Bootstrap(num_resamples=2000, seed=0)."""

    num_resamples: int = Field(ge=100)
    """Draws; the ends of an interval settle with more of them."""
    seed: int = Field(ge=0)
    """Of the draws; the same for every interval, so that equal samples get equal intervals."""
