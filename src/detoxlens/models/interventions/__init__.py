"""Detoxification without training: what a variant does to its model's chats, hidden states or logits.

    adapters/<m>/<v>/   model_ref.json     base, its revision; intervention: this folder; or system: a message
                        intervention.json  {"kind": "steering", "layer": 2, "strength": 4.0, ...}, and files of its own

`load_model` applies the intervention, and who writes a chat the message, so that no later stage asks for the kind. A
method is a file here with `make` and `apply`, and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import read_json
from detoxlens.models.interventions import dexperts, prompt, steering
from detoxlens.models.interventions.materials import Materials

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FILE = "intervention.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to detoxify without training."""

    make: Callable[[Any, Materials, Path], dict[str, Any]]
    """Its section of params, what there is to make it of, a folder for files of its own -> its settings."""
    apply: Callable[[PreTrainedModel, Path, Mapping[str, Any]], nn.Module] | None
    """The model as released, the variant's folder, its settings -> the network that the variant is. None: the settings
    have a `system` message, and the network stays as it is."""


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "prompt": Method(make=prompt.make, apply=None),
        "steering": Method(make=steering.make, apply=steering.apply),
        "dexperts": Method(make=dexperts.make, apply=dexperts.apply),
    }
)
"""Kind of a variant -> how it is made and applied."""


def apply_intervention(model: PreTrainedModel, folder: Path) -> nn.Module:
    """The network that the variant in `folder` is.

    Raises:
        UserError: the folder lacks a file, or was made for another model.
    """
    settings = read_json(folder / FILE)
    apply = METHODS[settings["kind"]].apply
    assert apply is not None, f"{folder} has no network of its own"
    return apply(model, folder, settings)
