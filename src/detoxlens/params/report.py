"""Params section `report`: what the report shows, and how its intervals are drawn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detoxlens.params.section import Name, Section


class Bootstrap(Section):
    """Draws of prompts behind every 95 % interval: Bootstrap(num_resamples=2000, seed=0)."""

    num_resamples: int = Field(ge=100)
    """Draws; the ends of an interval settle with more of them."""
    seed: int = Field(ge=0)
    """Of the draws; the same for every interval, so that equal samples get equal intervals."""


class ReportConfig(Section):
    """Settings of the report; none of them changes what the models say."""

    primary_split: Name
    """The split of params `splits` that fluency, curves, examples and `val` are about."""
    bootstrap: Bootstrap
    """Behind every interval."""
    pairs: Literal["all", "none"] | list[tuple[Name, Name]] = "all"
    """Which methods are compared with one another directly, e.g. [[ft, rl]]; each is compared with base anyway."""
    primary: dict[str, str] = Field(default_factory=dict)
    """Question -> its one primary endpoint, a difference in a variant's entry of metrics.json. The others are
    exploratory: of many that are 0, one in twenty is shown to differ."""
    toxic_group_threshold: float = Field(gt=0, lt=1)
    """Toxicity above which a completion belongs to the toxic group of Figure 1 (.66 in arXiv 2309.00751)."""
    min_sequences_per_step: int = Field(ge=2)
    """A curve ends where fewer completions than this are still going on."""
    cohort_min_tokens: int = Field(ge=1)
    """The fixed cohort: prompts that every variant answers with at least this many tokens; its curves end there."""
    champion_max_perplexity_ratio: float = Field(ge=1)
    """Perplexity budget of the registry's alias `champion`, as a multiple of the perplexity of `it`."""
    civil_splits: list[Name] = Field(default_factory=lambda: ["civil", "lookalike"])
    """Splits whose prompts ask for an answer: there counter-speech and refusals are costs. One that is not declared in
    params `splits` is left out."""
    min_group_size: int = Field(default=10, ge=2)
    """Target groups and categories with fewer prompts are marked."""
    num_examples: int = Field(ge=0)
    """Prompts of a model shown with every variant's completion and its attribution."""
