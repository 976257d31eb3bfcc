"""What a variant can be: a line per kind, from which its stage, its lists in section `run` and its phrases are derived.

A new method is a line here, a file that does it, a test and a row in docs/methods.md (CONTRIBUTING.md, "a
detoxification method").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to make a variant: Kind(stage="finetune", phrase="fine-tuned on counter-narratives", placebo_of="ft")"""

    stage: str
    """The stage that makes adapters/<m>/<v>."""
    phrase: str
    """What the report calls a variant of this kind; `{algorithm}` stands for the algorithm's name."""
    algorithms: Mapping[str, str] = field(default_factory=dict)
    """`algorithm` in params.yaml -> its name in the report; empty: the kind has none."""
    placebo_of: str | None = None
    """The variant whose control one of this kind may be; None: there is no control of this kind."""
    placebo_phrase: str = ""
    """What the report calls the control."""
    sweep: str | None = None
    """What `detoxlens sweep --method` calls a search over this kind; None: there is nothing to search."""
    init_from: str | None = None
    """The variant, besides `it`, whose adapter one of this kind may start from."""
    made_of: tuple[str, ...] = ()
    """Keys, in the section of the kind's name, of the variants whose adapters it combines at every token."""
    draws: bool = True
    """Whether anything is drawn at random when it is made; else it has no `seed`."""

    stage_of_data: Mapping[str, str] = field(default_factory=dict)
    """A value of `sft.data` that another stage makes than `stage` -> that stage, which has a list of its own."""
    phrase_of_data: Mapping[str, str] = field(default_factory=dict)
    """Another value of `sft.data` than `dialogues` -> what the report calls such a variant."""

    def lists(self, name: str) -> list[str]:
        """The lists in section `run` that name this kind's variants, one per DVC matrix."""
        if name == "base":
            return []
        after = [f"{name}_after_{self.init_from}_variants"] if self.init_from else []
        control = [f"{name}_placebo_variants"] if self.placebo_of else []
        return [f"{name}_variants", *after, *control, *(f"{stage}_variants" for stage in self.stage_of_data.values())]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "base": Kind(stage="base", phrase="the model as released (the paper's IT)"),
        "sft": Kind(
            stage="finetune",
            phrase="fine-tuned on counter-narratives",
            sweep="finetune",
            placebo_of="ft",
            placebo_phrase="fine-tuned on base's own answers",
            stage_of_data={"own_least_toxic": "rejection"},
            phrase_of_data={
                "own_least_toxic": "fine-tuned on base's own least toxic answers",
                "own_random": "fine-tuned on base's own answers",
            },
        ),
        "rl": Kind(
            stage="rl",
            phrase="trained by {algorithm}",
            sweep="ppo",
            algorithms={"ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO"},
            placebo_of="rl",
            placebo_phrase="{algorithm} with permuted rewards",
            init_from="ft",
        ),
        "preference": Kind(
            stage="preference",
            phrase="trained by {algorithm} on pairs",
            sweep="preference",
            algorithms={"dpo": "DPO", "kto": "KTO"},
        ),
        "prompt": Kind(stage="intervene", phrase="given a system message", sweep="prompt", draws=False),
        "steering": Kind(
            stage="intervene", phrase="steered from hostile to civil replies", sweep="steering", draws=False
        ),
        "dexperts": Kind(
            stage="intervene",
            phrase="its logits moved by those of an expert (DExperts)",
            sweep="dexperts",
            made_of=("expert", "anti_expert"),
            draws=False,
        ),
    }
)
RUN_LISTS = tuple(key for name, kind in KINDS.items() for key in kind.lists(name))
"""sft_variants, sft_placebo_variants, rl_variants, ...: every list of section `run` that a DVC matrix walks over."""
SWEEPS = {kind.sweep: name for name, kind in KINDS.items() if kind.sweep}
"""What `detoxlens sweep --method` takes -> the kind of the swept variant."""
ALGORITHMS = {algorithm: name for kind in KINDS.values() for algorithm, name in kind.algorithms.items()}
"""Every algorithm -> its name in the report."""


def run_list(kind: str, *, placebo: bool, init_from: str | None, data: str | None = None) -> str | None:
    """The list in section `run` that names a variant; None for the base model. `data` is its `sft.data`."""
    if kind == "base":
        return None
    if data in KINDS[kind].stage_of_data:
        return f"{KINDS[kind].stage_of_data[data]}_variants"
    after = init_from if init_from == KINDS[kind].init_from else None
    return f"{kind}_placebo_variants" if placebo else f"{kind}_after_{after}_variants" if after else f"{kind}_variants"
