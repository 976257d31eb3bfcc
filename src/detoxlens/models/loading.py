"""The only `from_pretrained`: from a `ModelRef` to a model and its tokenizer, embedded, local or from the hub.

safetensors only; `trust_remote_code` is off unless a model's params say otherwise; no stage branches on a model's kind.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.hub import hub_refusal
from detoxlens.models.quant import Quantization, convertible_layers, make_differentiable, quantization_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def weights_sha256(folder: Path) -> str:
    """sha256 over the safetensors files of a checkpoint folder, in name order.

    Raises:
        UserError: the folder holds none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no *.safetensors; pickled weights are not loaded, convert them first.")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def resolve(root: Path, source: str, revision: str | None) -> ModelRef:
    """Pins a local folder (by its weights' sha256) or a hub model (by its commit sha).

    Raises:
        UserError: no such folder or hub model, no access, or no network.
    """
    if (root / source).is_dir():
        return ModelRef(base=source, revision=weights_sha256(root / source), adapter=None)
    if source.startswith((".", "/")) or source.count("/") != 1:
        raise UserError(f"models: {source!r} is neither a folder nor a hub id such as owner/name.")
    from huggingface_hub import HfApi

    try:
        sha = HfApi().model_info(source, revision=revision).sha
    except Exception as e:  # without a network the hub client raises its HTTP library's own errors, now httpx's
        told = hub_refusal(e, what="models:", source=source, revision=revision)
        raise told or UserError(
            f"models: {source} could not be looked up on the hub ({type(e).__name__}: {_first_line(e)}). Try again, or "
            "set models.<name>.source to a folder that holds the checkpoint."
        ) from None
    return ModelRef(base=source, revision=sha, adapter=None)


def load_model(
    root: Path,
    ref: ModelRef,
    *,
    device: str,
    dtype: str,
    trainable_adapter: bool = False,
    trust_remote_code: bool = False,
    quantization: Quantization | None = None,
    device_map: str | None = None,
) -> PreTrainedModel | PeftModel:
    """The causal language model of `ref`, in eval mode on `device`, its adapter applied when it has one.

    Args:
        root: repository root, against which relative paths are read.
        ref: what to load.
        device: e.g. "cpu" or "cuda:0".
        dtype: "float32", "bfloat16" or "float16".
        trainable_adapter: leave the adapter's weights trainable; the base stays frozen.
        trust_remote_code: run the model's own Python code from the hub.
        quantization: keep the linear layers' weights in 8 or 4 bits.
        device_map: accelerate's, e.g. "auto": the model is spread over all accelerators, and `device` is not used.

    Raises:
        UserError: no access, no network, quantization not possible here, weights or adapter missing or damaged.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source, revision = source_of(root, ref)
    placed = device_map or ({"": device} if quantization else None)
    try:
        bits = quantization and quantization_config(quantization, device=device, dtype=dtype, name=ref.base)
        with convertible_layers() if bits else nullcontext():
            model = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                device_map=placed,
                quantization_config=bits,
            )
    except UserError:
        raise
    except (OSError, ValueError) as e:
        told = hub_refusal(e, what="The model", source=ref.base, revision=revision)
        raise told or UserError(f"The model {ref.base} could not be loaded: {_first_line(e)}") from e
    if quantization:
        make_differentiable(model, quantization, name=ref.base)
    if ref.adapter is not None:
        from peft import PeftModel

        folder = root / ref.adapter
        if not (folder / "adapter_model.safetensors").exists():
            raise UserError(f"{folder} holds no adapter_model.safetensors; `dvc repro` or `dvc pull` makes it.")
        model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable_adapter)
    if not (ref.adapter and trainable_adapter):
        model.requires_grad_(False)
    return (model if placed else model.to(device)).eval()


def load_tokenizer(root: Path, ref: ModelRef, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer of `ref`, with an end-of-sequence and a padding token.

    Raises:
        UserError: the folder has no tokenizer, a slow one only, or one without an end-of-sequence token.
    """
    from transformers import AutoTokenizer

    source, revision = source_of(root, ref)
    local = Path(source)
    if local.is_dir() and not any((local / n).exists() for n in ("tokenizer.json", "tokenizer_config.json")):
        raise UserError(
            f"{ref.base} has no tokenizer (tokenizer.json): save it beside the weights with "
            f"tokenizer.save_pretrained({ref.base!r})."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, TypeError) as e:
        told = hub_refusal(e, what="The tokenizer of", source=ref.base, revision=revision)
        raise told or UserError(f"The tokenizer of {ref.base} could not be loaded: {_first_line(e)}") from e
    if not tokenizer.is_fast:
        raise UserError(f"{ref.base} has only a slow tokenizer; convert it to tokenizer.json: offsets are needed.")
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of {ref.base} has no end-of-sequence token; set eos_token in its config.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def source_of(root: Path, ref: ModelRef) -> tuple[str, str | None]:
    """What `from_pretrained` takes: a local path without revision, or a hub id with its commit."""
    local = root / ref.base
    return (str(local), None) if local.is_dir() else (ref.base, ref.revision)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
