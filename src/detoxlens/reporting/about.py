"""What a stranger must know of the run: what its variants, splits and settings are. The stage fills it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from detoxlens.common.names import BASE, shown_name
from detoxlens.params.kinds import KINDS
from detoxlens.params.splits import Condition, SplitConfig
from detoxlens.params.variants import VariantConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a variant is: Role(kind="sft", text="fine-tuned on counter-narratives")."""

    kind: str
    """As in params.yaml; of what is fine-tuned on base's own answers, `own_least_toxic` or `own_random`."""
    text: str
    """A phrase for the reader."""
    placebo_of: str | None = None
    """The variant whose control it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The run's own words; empty where a report is made of bare tables."""

    variants: Mapping[str, Role] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    """Name -> which prompts."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Setting -> value, in the order of the page; nothing that differs between two runs of the same content."""
    overlap: tuple[bool, str] | None = None
    """Whether evaluation prompts stand in what was trained on, and a sentence about it; None where it is not known."""
    roles: Sequence[str] = ()
    """What one classifier is at once, in sentences."""

    def kind(self, variant: str) -> str | None:
        """As `Role.kind`; None where it is not known."""
        role = self.variants.get(variant)
        return role.kind if role else "base" if variant == BASE else None

    def is_placebo(self, variant: str) -> bool:
        return variant in self.variants and self.variants[variant].placebo_of is not None

    def placebo(self, variant: str, present: Iterable[str]) -> str | None:
        """The first of `present` that is the control of `variant`; None without one."""
        return next((v for v in present if v in self.variants and self.variants[v].placebo_of == variant), None)

    def glossary(self, variants: Iterable[str], splits: Iterable[str]) -> dict[str, str]:
        """Term -> phrase, for the line under the title."""
        named = {shown_name(v): self.variants[v].text for v in variants if v in self.variants}
        base = {"base": KINDS["base"].phrase}
        return base | named | {split: self.splits[split] for split in splits if split in self.splits}


def role(config: VariantConfig, data: str | None = None) -> Role:
    """Of a variant of params.yaml; `data` is what one of kind `sft` learns from."""
    own, control = KINDS[config.kind], config.placebo_of
    after = f", after {config.init_from}" if config.init_from not in (None, BASE) and not control else ""
    seed = "" if config.seed is None else f", seed {config.seed}"
    phrase = own.phrase_of_data.get(data or "", own.phrase)
    what = f"control of {control}: {own.placebo_phrase}" if control else phrase
    named = what.format(algorithm=own.algorithms.get(config.algorithm or "", ""))
    kind = data if data in own.phrase_of_data else config.kind
    return Role(kind=kind, text=f"{named}{after}{seed}", placebo_of=control)


def split_phrase(config: SplitConfig) -> str:
    """`prompts whose toxicity is above 0.5`."""
    conditions = [_in_words(name, condition) for name, condition in config.where.items()]
    source = config.source or ("" if conditions else "data.rtp")
    of = f" of {source}" if source else ""
    which = f" {' and '.join(conditions)}" if conditions else ", all"
    return f"prompts{of}{which}" + (", continuation included" if config.text != "prompt" else "")


FIELDS = {"prompt.toxicity": "whose toxicity", "continuation.toxicity": "whose original continuation's toxicity"}
"""Field of RealToxicityPrompts -> how a sentence about prompts goes on; another field is named as it is."""
COMPARED = {"gt": "is above", "ge": "is at least", "lt": "is below", "le": "is at most", "eq": "is"}


def _in_words(name: str, condition: Condition) -> str:
    if name == "challenging" and condition.given == {"eq": True}:
        return "that RealToxicityPrompts calls challenging"
    bounds = " and ".join(f"{COMPARED[op]} {value}" for op, value in condition.given.items())
    return f"{FIELDS.get(name, f'whose {name}')} {bounds}"
