"""Check that a checkpoint holds the weights that its config describes: what it lacks would be random."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def check_weights(model: PreTrainedModel, report: dict[str, Collection], *, name: str) -> None:
    """Compares checkpoint and network; weights of parts that the network does not have are counted in the log.

    Args:
        model: as `from_pretrained` made it, `ignore_mismatched_sizes` set.
        report: its loading report, by `output_loading_info`.
        name: how messages call the model.

    Raises:
        UserError: the checkpoint lacks a weight, has one of another shape, or has more layers or biases than the
            network.
    """
    if missing := report["missing_keys"]:
        raise UserError(
            f"{name}: the checkpoint lacks {_named(missing)}, which would be random.{_remedy(model, missing)} Name a "
            "checkpoint of the whole language model, saved by save_pretrained."
        )
    if wrong := report["mismatched_keys"]:
        shapes = [f"{key} is {list(found)} for {list(wanted)}" for key, found, wanted in wrong]
        raise UserError(
            f"{name}: weights of the checkpoint have other shapes than its config.json describes: {_named(shapes)}. "
            "Take both files from one checkpoint."
        )
    unused = report["unexpected_keys"]
    if own := [key for key in unused if _belongs(key, model)]:
        raise UserError(
            f"{name}: its config.json describes a smaller network than the checkpoint holds; {_named(own)} would be "
            "left out. Take both files from one checkpoint."
        )
    if unused:
        log.warning("%s: the checkpoint's %s are of no use to a %s", name, _named(unused), type(model).__name__)


def check_adapter(model: PeftModel, folder: Path, *, name: str) -> None:
    """Raises UserError unless the adapter's file holds exactly the weights that adapter `name` has in the network."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        keys = file.keys()
        found = {key: file.get_slice(key).get_shape() for key in keys}
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    wanted = {k: list(w.shape) for k, w in weights.items()}
    unused = [key for key in found.keys() - wanted.keys() if "lora_" in key]
    shapes = [
        f"{key} is {found[key]} for {wanted[key]}" for key in found.keys() & wanted.keys() if found[key] != wanted[key]
    ]
    if missing := wanted.keys() - found.keys():
        what = f"lacks {_named(missing)}"
    elif unused:
        what = f"holds {_named(unused)}, which have no place in it"
    elif shapes:
        what = f"has other shapes: {_named(shapes)}"
    else:
        return
    raise UserError(
        f"{folder}: the adapter was not made for this {type(model.get_base_model()).__name__}: its file {what}. Load "
        "it on the model that its adapter_config.json names, or train it again (dvc repro)."
    )


def _belongs(key: str, model: nn.Module) -> bool:
    """Is it a further layer of the network's kind, or a further weight of a layer that the network has?"""
    kinds = {_without_numbers(name) for name in model.state_dict()}
    layer = dict(model.named_modules()).get(key.rpartition(".")[0])
    return _without_numbers(key) in kinds or (layer is not None and not any(layer.children()))


def _without_numbers(key: str) -> str:
    return re.sub(r"\d+", "*", key)


def _remedy(model: PreTrainedModel, missing: Collection[str]) -> str:
    head = model.get_output_embeddings()
    names = {f"{n}.weight" for n, module in model.named_modules() if module is head}
    if names & set(missing) and len(missing) <= 2:
        return " If the output layer is the embedding's, set tie_word_embeddings: true in its config.json."
    return ""


def _named(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
