"""A random checkpoint `m`, adapters of it, and a variant folder as the stage writes it."""

from __future__ import annotations

import torch

from detoxlens.common.artifacts import write_json, write_model_ref
from detoxlens.common.records import ModelRef
from detoxlens.models.interventions import FILE, METHODS
from detoxlens.models.interventions.materials import Materials
from detoxlens.models.loading import load_model
from detoxlens.params.models import WeightsConfig
from tests.attribution.tiny import tiny_model, with_lora

IDS = torch.tensor([[5, 9, 44, 2, 17, 60, 31], [7, 8, 3, 50, 51, 52, 53]])


def save_model(root, name="gpt_neox") -> ModelRef:
    tiny_model(name).save_pretrained(root / "m")
    return ModelRef(base="m", revision="r1", adapter=None)


def save_adapter(root, variant: str, *, name="gpt_neox", seed=1, revision="r1", **how) -> None:
    folder = root / "adapters" / variant
    with_lora(tiny_model(name), seed=seed, **how).save_pretrained(folder, save_embedding_layers=False)
    write_model_ref(folder, ModelRef(base="m", revision=revision, adapter=f"adapters/{variant}"))


def make(root, ref, kind, config, *, replies=None) -> ModelRef:
    """What stage `intervene` does, without tokenizer and data."""
    folder = root / "adapters" / kind
    folder.mkdir(parents=True, exist_ok=True)
    materials = Materials(
        base=ref,
        network=lambda: load(root, ref),
        replies=lambda at_most: replies,
        adapter=lambda variant: root / "adapters" / variant,
        check_system=lambda message: None,
    )
    settings = METHODS[kind].make(config, materials, folder)
    write_json(folder / FILE, {"kind": kind, **settings})
    return ModelRef(base=ref.base, revision=ref.revision, adapter=None, intervention=f"adapters/{kind}")


def load(root, ref, **how):
    return load_model(root, ref, WeightsConfig(), device="cpu", **how)


@torch.no_grad()
def logits(network, ids=IDS):
    return network(input_ids=ids, use_cache=False).logits
