"""Params section `run`: what to run, on which device and how many threads, by which seed."""

from __future__ import annotations

from pydantic import Field, create_model

from detoxlens.params.kinds import RUN_LISTS
from detoxlens.params.section import Name, Section


class _RunConfig(Section):
    """What to run: the lists that dvc.yaml's matrices walk over."""

    models: list[Name] = Field(min_length=1)
    """Keys of `models`, in the order of the tables."""
    variants: list[Name] = Field(min_length=1)
    """All variants, `it` among them; generate, score, attribute and report cover these."""
    interpolated_variants: list[Name] = Field(default_factory=list)
    """Those whose adapter is applied at several strengths (stage `interpolate`); none by default: it takes time."""
    seed: int = Field(ge=0)
    """Of everything random that has no seed of its own."""
    num_threads: int = Field(ge=1)
    """Torch threads of every stage; identical bytes are promised for one value of it."""
    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")
    """Where torch computes: cpu, cuda, cuda:1 or mps."""


_LISTS = {
    name: (list[Name], Field(default_factory=list, description="Those of run.variants that one stage makes."))
    for name in RUN_LISTS
}
RunConfig = create_model("RunConfig", __base__=_RunConfig, **_LISTS)
"""Section `run`. DVC cannot filter a matrix, so variants are named again by kind, in the lists of `params.kinds`."""
