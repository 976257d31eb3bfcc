"""The stages in their order, and the sections of params.yaml that each reads.

The one list from which dvc.yaml is checked, and from which MLflow's records, the key of comparable runs and the
sections of a sweep are derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from detoxlens.params.kinds import KINDS

READS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prepare": ("data", "splits"),
        "reward_model": ("reward_model",),
        "base": ("tiny",),
        "finetune": ("lora", "sft"),
        "rejection": ("lora", "sft", "reward_model", "toxicity"),
        "rl": ("lora", "ppo", "generation", "reward_model", "toxicity"),
        "preference": ("lora", "preference", "generation", "reward_model", "toxicity"),
        "intervene": ("prompt", "steering", "dexperts"),
        "generate": ("generation",),
        "score": ("toxicity", "toxic_words"),
        "attribute": ("attribution",),
        "interpolate": ("interpolate", "generation", "toxicity", "attribution"),
        "report": ("splits", "report", "toxicity", "toxic_words", "generation", "attribution"),
    }
)
"""Stage -> the sections that it reads besides `run`, `models` and `variants`, which every stage may."""
STAGES = tuple(READS)
MEASURE = ("generate", "score", "attribute")
"""What is done with a variant once it is there."""
EVALUATION = (*MEASURE, "report")
TRAINS = {name: kind.stage for name, kind in KINDS.items()}
"""Kind of a variant -> the stage that makes its adapter."""
TRAINING = tuple(dict.fromkeys(s for kind in KINDS.values() for s in (kind.stage, *kind.stage_of_data.values())))
"""Every stage that makes adapters."""


def made_by(kind: str, stage: str) -> tuple[str, ...]:
    """The sections by which `stage` makes a variant of `kind`: all but those named after other kinds."""
    return tuple(section for section in READS[stage] if section == kind or section not in KINDS)


MODULE_PREFIX = "detoxlens.pipeline.stages."


def module_of(stage: str) -> str:
    """The dotted name of the stage's module."""
    return MODULE_PREFIX + stage
