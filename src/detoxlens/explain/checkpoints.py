"""What `--checkpoint` names, and the chat template that goes with it."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

from detoxlens.common.artifacts import read_json, read_model_ref
from detoxlens.common.errors import UserError
from detoxlens.common.names import BASE, shown_name
from detoxlens.common.records import ModelRef
from detoxlens.params.load import Params
from detoxlens.params.models import ChatTemplate, TemplateConfig

NO_TEMPLATE = TemplateConfig(user="{text}", bot="", reply="{text}", end="", eos_after_reply=False)
"""The model sees the prompt as it was typed."""
REGISTRY = "models:/"
"""What a version in MLflow's registry begins with."""


def find_checkpoint(root: Path, checkpoint: str, *, revision: str | None = None) -> ModelRef:
    """What `--checkpoint` names: a variant (tiny-neox/rl, or its folder), a PEFT adapter, a model, a hub id, or a
    version in MLflow's registry (models:/tiny-neox-detox@champion).

    Raises:
        UserError: nothing of that name, or a folder that holds no model.
    """
    if checkpoint.startswith(REGISTRY):
        return _from_registry(root, checkpoint)
    checkpoint = full_name(root, checkpoint)
    folder = root / checkpoint
    if not folder.is_dir():
        if "/" not in checkpoint and (root / "adapters" / checkpoint).is_dir():
            raise UserError(f"--checkpoint {checkpoint} names a model; name the folder of a variant. {_offers(root)}")
        if checkpoint.startswith((".", "/")) or checkpoint.count("/") > 1:
            raise UserError(
                f"--checkpoint {checkpoint}: there is no such folder under {root}, and a hub id reads owner/name. "
                f"{_offers(root)}"
            )
        return ModelRef(base=checkpoint, revision=revision or "main", adapter=None)
    if revision is not None:
        raise UserError(f"--revision {revision} is for hub models; --checkpoint {checkpoint} is a folder.")
    if (folder / "model_ref.json").exists():
        return read_model_ref(folder)
    if (folder / "adapter_config.json").exists():
        config = read_json(folder / "adapter_config.json")
        base = find_checkpoint(root, config["base_model_name_or_path"])
        pinned = config.get("revision") if not (root / base.base).is_dir() else None
        return dataclasses.replace(base, adapter=checkpoint, revision=pinned or base.revision)
    if not (folder / "config.json").exists():
        raise UserError(
            f"--checkpoint {checkpoint}: the folder holds neither config.json (a model), adapter_config.json (a PEFT "
            f"adapter) nor model_ref.json (a variant). {_offers(root)}"
        )
    return ModelRef(base=checkpoint, revision="local", adapter=None)


def full_name(root: Path, checkpoint: str) -> str:
    """`tiny-neox/rl` -> `adapters/tiny-neox/rl`, where there is such a variant and no such folder; else as it is."""
    if (root / checkpoint).is_dir() or checkpoint.startswith(REGISTRY):
        return checkpoint
    model, _, variant = checkpoint.partition("/")
    short = f"adapters/{model}/{BASE if variant == shown_name(BASE) else variant}"
    return short if variant and (root / short / "model_ref.json").exists() else checkpoint


def _from_registry(root: Path, uri: str) -> ModelRef:
    """The adapter of a registered version, downloaded; its base model is where the adapter says."""
    from detoxlens.tracking import download, resolve_store

    folder = download(resolve_store(root, os.environ), uri)
    if not (folder / "adapter_config.json").exists():
        raise UserError(f"--checkpoint {uri}: that version holds no PEFT adapter (adapter_config.json).")
    config = read_json(folder / "adapter_config.json")
    return ModelRef(base=config["base_model_name_or_path"], revision=config["revision"], adapter=str(folder))


def _offers(root: Path) -> str:
    """The project's own checkpoints, for messages."""
    own = sorted(f.parent.relative_to(root).as_posix() for f in root.glob("adapters/*/*/model_ref.json"))
    return f"Here are: {', '.join(own)}." if own else "`dvc repro` makes this project's own under adapters/."


def find_template(params: Params | None, checkpoint: str, key: str | None) -> TemplateConfig | ChatTemplate | None:
    """The chat template around the prompt that params.yaml has; None where it says nothing about the checkpoint.

    Args:
        params: the project's, where there is one.
        checkpoint: what `--checkpoint` says; `adapters/<m>/...` and `models/<m>/...` take the template of model <m>.
        key: what `--template` says; None takes it from the checkpoint.

    Raises:
        UserError: `key` is not a model of params.yaml.
    """
    if key is not None:
        if params is None:
            raise UserError(f"--template {key} names a model of params.yaml, but there is no such file here.")
        return params.model(key).template
    if checkpoint.startswith(REGISTRY):
        from detoxlens.tracking import model_of

        owner = model_of(checkpoint)
        return params.model(owner).template if params and owner else None
    parts = Path(checkpoint).parts
    owners = [name for kind, name in itertools.pairwise(parts) if kind in ("adapters", "models")]
    declared = (params.raw.get("models") or {}) if params else {}
    owner = next((name for name in owners if name in declared), None)
    return params.model(owner).template if params and owner else None
