"""Params section `run`: what to run, on which device and how many threads, by which seed."""

from __future__ import annotations

from pydantic import Field

from detoxlens.params.section import Name, Section


class RunConfig(Section):
    """What to run: the lists that dvc.yaml's matrices walk over."""

    models: list[Name] = Field(min_length=1)
    variants: list[Name] = Field(min_length=1)
    """All variants, `it` among them; generate, score, attribute and report cover these."""
    sft_variants: list[Name]
    """The variants of kind `sft`: DVC cannot filter a matrix, so they are named again (and checked)."""
    rl_variants: list[Name]
    """The variants of kind `rl` that start from `it`."""
    rl_after_ft_variants: list[Name]
    """The variants of kind `rl` with `init_from: ft`."""
    sft_placebo_variants: list[Name] = Field(default_factory=list)
    """The variants with `placebo_of: ft`."""
    rl_placebo_variants: list[Name] = Field(default_factory=list)
    """The variants with `placebo_of: rl`."""
    seed: int = Field(ge=0)
    num_threads: int = Field(ge=1)
    """Torch threads of every stage; identical bytes are promised for one value of it."""
    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")
