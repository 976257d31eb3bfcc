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
from detoxlens.models.adapters import apply_adapter, merge_adapter
from detoxlens.models.checkpoint import check_weights
from detoxlens.models.hub import first_line, hub_refusal, loading
from detoxlens.models.quant import convertible_layers, make_differentiable, quantization_config
from detoxlens.params.models import WeightsConfig

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
        refusal = hub_refusal(e, what="models:", source=source, revision=revision)
        raise refusal or UserError(
            f"models: {source} could not be looked up on the hub ({type(e).__name__}: {first_line(e)}). Try again, or "
            "set models.<name>.source to a folder that holds the checkpoint."
        ) from None
    return ModelRef(base=source, revision=sha, adapter=None)


def load_model(
    root: Path,
    ref: ModelRef,
    spec: WeightsConfig,
    *,
    device: str,
    trainable_adapter: bool = False,
    merged: bool = False,
) -> PreTrainedModel | PeftModel:
    """The causal language model of `ref`, in eval mode on `device`: the one network that every stage works with.

    Args:
        root: repository root, against which relative paths are read.
        ref: what to load, and the adapter or the intervention that is applied, if it has one.
        spec: in which format, on which devices, and whose code may run.
        device: e.g. "cpu" or "cuda:0"; not used where `spec.device_map` spreads the model over all accelerators.
        trainable_adapter: leave the adapter's weights trainable; the base stays frozen.
        merged: one product per adapted layer instead of three, where that gives the same logits; see `merge_adapter`.

    Raises:
        UserError: no access, no network, quantization not possible here, weights or adapter missing, damaged, or not
            those that the config describes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source, revision = source_of(root, ref)
    placed = spec.device_map or ({"": device} if spec.quantization else None)
    bits = None
    if spec.quantization:
        bits = quantization_config(spec.quantization, device=device, dtype=spec.dtype, name=ref.base)
    with convertible_layers() if bits else nullcontext(), loading("The model", source=ref.base, revision=revision):
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=getattr(torch, spec.dtype),
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            device_map=placed,
            quantization_config=bits,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # named by check_weights
        )
    check_weights(model, report, name=ref.base)
    if getattr(model.config, "rescale_every", 0):  # RWKV halves weights in evaluation mode, but not an adapter's
        model.config.rescale_every = 0
    if spec.quantization:
        make_differentiable(model, spec.quantization, name=ref.base)
    model = model if placed else model.to(device)
    if ref.adapter is not None:
        model = apply_adapter(model, root / ref.adapter, trainable=trainable_adapter)
    if not (ref.adapter and trainable_adapter):
        model.requires_grad_(False)
    model.eval()
    if ref.intervention is not None:
        from detoxlens.models.interventions import apply_intervention

        return apply_intervention(model, root / ref.intervention).eval().requires_grad_(False)
    return merge_adapter(model) if merged and ref.adapter and not spec.quantization else model


def load_tokenizer(root: Path, ref: ModelRef, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer of `ref`, with an end-of-sequence and a padding token.

    Raises:
        UserError: the folder has no tokenizer, a slow one only, or one without an end-of-sequence token.
    """
    from transformers import AutoConfig, AutoTokenizer

    source, revision = source_of(root, ref)
    local = Path(source)
    if local.is_dir() and not any((local / n).exists() for n in ("tokenizer.json", "tokenizer_config.json")):
        raise UserError(
            f"{ref.base} has no tokenizer (tokenizer.json): save it beside the weights with "
            f"tokenizer.save_pretrained({ref.base!r})."
        )
    with loading("The tokenizer of", source=ref.base, revision=revision):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    num_rows = config.get_text_config(decoder=True).vocab_size  # of the embedding
    if not tokenizer.is_fast:
        raise UserError(f"{ref.base} has only a slow tokenizer; convert it to tokenizer.json: offsets are needed.")
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of {ref.base} has no end-of-sequence token; set eos_token in its config.")
    if tokenizer.eos_token_id >= num_rows:
        raise UserError(
            f"The tokenizer of {ref.base} ends texts with {tokenizer.eos_token!r}, token {tokenizer.eos_token_id}, and "
            f"the model knows 0..{num_rows - 1}: use the tokenizer that it was trained with."
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= num_rows:  # padding is masked: any token does
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def source_of(root: Path, ref: ModelRef) -> tuple[str, str | None]:
    """What `from_pretrained` takes: a local path without revision, or a hub id with its commit."""
    local = root / ref.base
    return (str(local), None) if local.is_dir() else (ref.base, ref.revision)
