"""Adapter folders whose bytes depend on the training alone, loaded by plain `PeftModel.from_pretrained`.

adapter_model.safetensors  adapter_config.json  model_ref.json  history.jsonl  README.md (model card)
"""

from __future__ import annotations

import enum
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import (
    Layout,
    link,
    read_json,
    write_history,
    write_json,
    write_model_ref,
    write_text,
)
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.checkpoint import check_adapter
from detoxlens.models.hub import loading

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


def save_adapter_folder(
    model: PeftModel,
    folder: Path,
    *,
    root: Path,
    base_ref: ModelRef,
    history: Iterable[Mapping[str, float | int]],
    card: str,
    final_folder: Path | None = None,
) -> None:
    """Writes the active adapter of `model`; the same weights and arguments give the same bytes.

    `adapter_config.json` has `target_modules` and every other set sorted, the base as a hub id or a path relative to
    the repository root, and its revision: a commit, or the sha256 of local weights. Base weights are never written,
    not even of an embedding or head that the adapter targets.

    Args:
        model: what was trained.
        folder: where to write; made if missing.
        root: repository root.
        base_ref: the base model; its `adapter` is ignored.
        history: training curves, one row per step.
        card: Markdown of the model card, below its metadata.
        final_folder: where the folder will lie in the end, if not where it is written; `model_ref.json` names it.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    final = folder if final_folder is None else final_folder
    assert not final.is_relative_to(Layout(root).state), f"{final} is scratch: say final_folder=layout.adapter(...)"
    folder.mkdir(parents=True, exist_ok=True)
    name = model.active_adapter
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    save_file(
        {key: tensor.detach().to("cpu").contiguous() for key, tensor in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = model.peft_config[name].to_dict() | {
        "base_model_name_or_path": base_ref.base,
        "revision": base_ref.revision,
        "inference_mode": True,
    }
    text = json.dumps(_plain(config), indent=2, sort_keys=True, allow_nan=False)
    write_text(folder / "adapter_config.json", text + "\n")
    adapter = final.relative_to(root).as_posix()
    write_model_ref(folder, ModelRef(base=base_ref.base, revision=base_ref.revision, adapter=adapter))
    write_history(folder, [dict(row) for row in history])
    write_text(folder / "README.md", front_matter(base_ref, config["peft_type"]) + card)


def front_matter(base_ref: ModelRef, peft_type: str) -> str:
    """A model card's metadata, as hubs and PEFT read it; a base of this machine's own has no hub id to name."""
    on_a_hub = len(base_ref.revision) == len("0f3a" * 10)  # a commit; local weights have a sha256
    lines = [
        "---",
        *([f"base_model: {base_ref.base}", "base_model_relation: adapter"] if on_a_hub else []),
        "library_name: peft",
        "pipeline_tag: text-generation",
        f"tags: [{getattr(peft_type, 'value', peft_type).lower()}, detoxification]",
        "---",
    ]
    return "\n".join(lines) + "\n\n"


def scale_adapter(source: Path, folder: Path, alpha: float) -> None:
    """Writes into `folder` the LoRA adapter of `source`, its update times `alpha`: W + alpha * (lora_alpha / r) B A.

    0 is the base model and 1 the adapter itself, to the last bit of their logits: `lora_alpha` is scaled, whose factor
    on the update is linear, and the weights are linked.

    Raises:
        UserError: there is no adapter, or something in it is no multiple of the update.
    """
    path = source / "adapter_config.json"
    if not path.exists():
        raise UserError(f"{source} holds no adapter_config.json; `dvc repro` or `dvc pull` makes it.")
    config = read_json(path)
    whole = [key for key in ("modules_to_save", "trainable_token_indices", "use_dora") if config.get(key)]
    whole += ["bias"] if config.get("bias", "none") != "none" else []
    if config.get("peft_type") != "LORA" or whole:
        what = f"has {', '.join(whole)}" if whole else f"is of type {config.get('peft_type')}"
        raise UserError(
            f"{path} {what}: only a plain LoRA update can be scaled; leave it out of interpolated_variants."
        )
    pattern = {name: alpha * value for name, value in (config.get("alpha_pattern") or {}).items()}
    scaled = config | {"lora_alpha": alpha * config["lora_alpha"], "alpha_pattern": pattern}
    write_json(folder / "adapter_config.json", scaled)
    link(source / "adapter_model.safetensors", folder / "adapter_model.safetensors")


def apply_adapter(
    model: PreTrainedModel | PeftModel, folder: Path, *, trainable: bool, name: str = "default"
) -> PeftModel:
    """`model` with the adapter of `folder`, under `name` beside those that it has.

    Raises:
        UserError: the folder holds no adapter, or one that was made for another network.
    """
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").exists():
        raise UserError(f"{folder} holds no adapter_model.safetensors; `dvc repro` or `dvc pull` makes it.")
    with loading("The adapter", source=str(folder), revision=None), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys|Some weights of")  # errors, see below
        how = {"adapter_name": name, "is_trainable": trainable, "ignore_mismatched_sizes": True}
        if isinstance(model, PeftModel):
            policy = model
            policy.load_adapter(str(folder), **how)
        else:
            policy = PeftModel.from_pretrained(model, str(folder), **how)
    check_adapter(policy, folder, name=name)
    return policy


def merge_adapter(policy: PeftModel) -> nn.Module:
    """The network with the adapter in its weights; as it is, where that would be another network.

    A layer that shares its weights (a tied output layer) would carry the update to its twin.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    users = Counter(p.data_ptr() for _, p in policy.named_parameters(remove_duplicate=False))
    for module in policy.modules():
        if isinstance(module, BaseTunerLayer) and users[module.get_base_layer().weight.data_ptr()] > 1:
            return policy
    return policy.merge_and_unload()


def _plain(value: Any) -> Any:
    """`value` as JSON has it: sets sorted, enumerations by their value."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
