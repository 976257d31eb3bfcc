"""DExperts: logits of base + alpha (expert - anti-expert). Liu et al. 2021 (arXiv 2105.03023), eq. 2.

    adapters/<m>/<v>/expert/, anti_expert/    copies of two adapters; without the second, the base model is it

Expert and anti-expert are LoRA adapters on one backbone, which is in memory once: a token takes a pass without adapter
and one with each, with a key-value cache for each. Liu et al. cut base's distribution before they combine; here the
combined one is cut, by `generation`.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from detoxlens.common.artifacts import read_json, read_model_ref
from detoxlens.common.errors import UserError
from detoxlens.models.adapters import apply_adapter
from detoxlens.models.interventions.materials import Materials
from detoxlens.params.dexperts import DexpertsConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

EXPERT, ANTI_EXPERT = "expert", "anti_expert"
FILES = ("adapter_config.json", "adapter_model.safetensors")


def make(config: DexpertsConfig, materials: Materials, folder: Path) -> dict[str, Any]:
    """Copies the adapters, so that the variant stays what it was; the settings that `apply` takes.

    Raises:
        UserError: one is no LoRA adapter of linear layers, or was trained on another base model.
    """
    for role, variant in ((EXPERT, config.expert), (ANTI_EXPERT, config.anti_expert)):
        if role == ANTI_EXPERT and variant == "it":
            continue
        source = materials.adapter(variant)
        _check(source, f"dexperts.{role}={variant!r}", materials)
        (folder / role).mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(source / name, folder / role / name)
    return config.model_dump()


def apply(model: PreTrainedModel, folder: Path, settings: Mapping[str, Any]) -> PeftModel:
    """`model` with both adapters, whose forward gives the combined logits; so does that of a copy."""
    roles = [role for role in (EXPERT, ANTI_EXPERT) if (folder / role).is_dir()]
    policy = model
    for role in roles:
        policy = apply_adapter(policy, folder / role, trainable=False, name=role)
    inner = policy.get_base_model()
    inner.passes, inner.alpha = ((), *((role,) for role in roles)), settings["alpha"]
    inner.__class__ = _combining(type(inner))
    return policy


@functools.cache
def _combining(cls: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class of `cls` whose forward combines: a method, for a function on the instance would run the network that a
    copy was made of."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = cls.forward

    @functools.wraps(plain)
    def forward(self: Any, *args: Any, past_key_values: PassCaches | None = None, **kwargs: Any) -> Any:
        layers = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
        caches = [None] * len(self.passes) if past_key_values is None else past_key_values.caches
        found = []
        for active, cache in zip(self.passes, caches, strict=True):
            for layer in layers:
                layer.set_adapter(list(active), inference_mode=True)
            embeds = kwargs.get("inputs_embeds")
            own = kwargs if embeds is None else kwargs | {"inputs_embeds": embeds.clone()}  # a model may change it
            found.append(plain(self, *args, past_key_values=cache, **own))
        base, expert, *anti = (output.logits for output in found)
        output = found[0]
        output.logits = combined(base, expert, anti[0] if anti else base, alpha=self.alpha)
        output.past_key_values = past_key_values
        return output

    def new_cache(self: Any) -> PassCaches:
        return PassCaches.of(self, num_passes=len(self.passes))

    return type(cls.__name__, (cls,), {"forward": forward, "new_cache": new_cache, "__module__": cls.__module__})


def combined(
    base: Float[Tensor, "*batch vocab"],
    expert: Float[Tensor, "*batch vocab"],
    anti_expert: Float[Tensor, "*batch vocab"],
    *,
    alpha: float,
) -> Float[Tensor, "*batch vocab"]:
    """base + alpha (expert - anti_expert), in float32 at least; base itself at alpha 0."""
    dtype = torch.promote_types(base.dtype, torch.float32)
    return base.to(dtype) + alpha * (expert.to(dtype) - anti_expert.to(dtype))


@dataclass(frozen=True, slots=True)
class PassCaches:
    """A key-value cache per pass over the backbone."""

    caches: Sequence[Any]

    @classmethod
    def of(cls, model: PreTrainedModel, *, num_passes: int) -> PassCaches:
        from transformers import DynamicCache

        return cls([DynamicCache(config=model.config) for _ in range(num_passes)])

    def batch_select_indices(self, rows: Tensor) -> None:
        """Only these rows are kept."""
        for cache in self.caches:
            cache.batch_select_indices(rows)


def _check(source: Path, key: str, materials: Materials) -> None:
    if not (source / FILES[0]).exists():
        raise UserError(
            f"{key}: {source} holds no adapter. Name a variant that is trained (kind sft, rl or preference)"
            + ("." if key.startswith(f"dexperts.{EXPERT}") else ", or `it`, the base model.")
        )
    ref = read_model_ref(source)
    if (ref.base, ref.revision) != (materials.base.base, materials.base.revision):
        raise UserError(
            f"{key}: its adapter was trained on {ref.base} at {ref.revision[:12]}, and this model is "
            f"{materials.base.base} at {materials.base.revision[:12]}: their logits cannot be combined on one "
            "backbone. Train the expert again on this one (`dvc repro`)."
        )
    saved = read_json(source / FILES[0]).get("modules_to_save")
    if saved:
        raise UserError(
            f"{key}: its adapter replaces whole modules ({', '.join(saved)}), which cannot be switched off between two "
            "passes. Name an adapter of LoRA matrices alone."
        )
