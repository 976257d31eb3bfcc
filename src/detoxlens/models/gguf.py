"""GGUF checkpoints, llama.cpp's file format, as safetensors with tokenizer and chat template.

    gguf:<path>                      a file; relative paths are the repository's
    package:<distribution>/<file>    a file inside an installed distribution, found without importing anything of it

transformers reads and dequantises; `Contents` is read by the package `gguf`, a second reader, and what one of the two
has and the other drops (a tensor without a place, a RoPE scaling, the splitting of text before BPE) is refused or set
right here: a checkpoint that loads and computes something else is worse than none.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from detoxlens.common.artifacts import write_json
from detoxlens.common.errors import UserError
from detoxlens.models.packaged import PACKAGE, find_in_distribution

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

GGUF = "gguf:"
KNOWN_SPLITS: Mapping[str, Literal["gpt-2", "digits", "transformers"]] = MappingProxyType(
    {
        **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"), "gpt-2"),
        **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "digits"),
        **dict.fromkeys(
            ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2", "dbrx", "smaug-bpe", "tekken", "qwen2"),
            "transformers",
        ),
        **dict.fromkeys(("deepseek-r1-qwen", "megrez", "qwen35", "gpt-4o", "llama4", "minimax-m2"), "transformers"),
    }
)
"""tokenizer.ggml.pre -> how text is split before BPE, as llama.cpp's llama-vocab.cpp has it: GPT-2's expression; each
digit alone, then that; or one that transformers 5.23 sets itself. It takes GPT-2's for all others without a word."""
READ_ERRORS = (ValueError, IndexError, KeyError, OverflowError, MemoryError, NotImplementedError, struct.error)
"""What readers of a binary file raise when it ends early or is another file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Contents(architecture="llama", name="SmolLM2-135M-Instruct", quantization="Q4_1", num_values=134_515_008, ...)"""

    architecture: str
    name: str
    """The file's, without its quantisation."""
    quantization: str
    """The type of most of its values."""
    num_values: int
    """Of all tensors."""
    tensors: tuple[str, ...]
    metadata: Mapping[str, Any]
    """Numbers and texts; no lists."""

    @property
    def title(self) -> str:
        """What the converted model is called."""
        if self.quantization in ("F32", "F16", "BF16"):
            return f"{self.name}, from a GGUF file in {self.quantization}"
        return f"{self.name}, dequantised from {self.quantization}"


def is_gguf(source: str) -> bool:
    """Does models.<m>.source name a GGUF file?"""
    return source.startswith((GGUF, PACKAGE))


def find_gguf(root: Path, source: str) -> Path:
    """The file that `source` names.

    Raises:
        UserError: it is missing, or no .gguf file; see `find_in_distribution`.
    """
    packaged = source.startswith(PACKAGE)
    path = find_in_distribution(source, key="models") if packaged else root / source.removeprefix(GGUF)
    if path.suffix != ".gguf":
        raise UserError(f"models: {source!r} names no .gguf file; other checkpoints are read from their folder.")
    if not path.is_file():
        raise UserError(
            f"models: {source!r}: {path} does not exist. Put the file there, or set models.<name>.source to its place."
        )
    return path


def check_sha256(path: Path, expected: str | None, *, key: str) -> None:
    """Raises UserError where the file is not the one whose sha256 is `expected` (None: any); `key` names it."""
    if expected is not None and (found := file_sha256(path)) != expected.removeprefix("sha256:"):
        raise UserError(
            f"{key}={expected!r}: {path} is another file, its sha256 is {found}. Fetch it anew, or, if this file is "
            f"meant, set {key} to its sha256."
        )


def file_sha256(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_contents(path: Path) -> Contents:
    """The file's names and sizes, by the package `gguf`; checks that all of it is there.

    Raises:
        UserError: the package is missing; the file is none, is cut off, or of a type that `gguf` does not know.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError(
            f"models: {path.name} is a GGUF file, which needs the package gguf: `pip install 'detoxlens[gguf]'`."
        ) from None
    try:
        reader = GGUFReader(path)
        metadata = {
            key: field.contents() for key, field in reader.fields.items() if len(field.types) == 1 and field.data
        }
        values: dict[str, int] = {}
        for tensor in reader.tensors:
            values[tensor.tensor_type.name] = values.get(tensor.tensor_type.name, 0) + math.prod(map(int, tensor.shape))
        quantization = max(values, key=values.__getitem__)
        architecture = str(metadata["general.architecture"])
        tensors = tuple(tensor.name for tensor in reader.tensors)
    except READ_ERRORS as e:
        raise _unreadable(path, e) from None
    return Contents(
        architecture=architecture,
        name=path.stem.removesuffix(f".{quantization}").removesuffix(f"-{quantization}"),
        quantization=quantization,
        num_values=sum(values.values()),
        tensors=tensors,
        metadata=metadata,
    )


def convert(path: Path, folder: Path, *, dtype: str) -> Contents:
    """Writes the checkpoint at `path` into `folder`: safetensors in `dtype`, config, tokenizer, chat template, card.

    Args:
        path: a .gguf file.
        folder: made if missing.
        dtype: "float32", "bfloat16" or "float16"; dequantised values are float32 and rounded to it.

    Raises:
        UserError: the file is damaged; its architecture, quantisation or tokenizer cannot be read exactly.
    """
    contents = read_contents(path)
    _check_rope(path, contents)
    tokenizer = _tokenizer(path, contents)
    model = _model(path, contents, dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    plain = {k: v for k, v in contents.metadata.items() if isinstance(v, str | int | float | bool)}
    card = {"title": contents.title, "file": path.name, "sha256": file_sha256(path), "metadata": plain}
    write_json(folder / "gguf.json", card)
    return contents


def read_config(path: Path) -> PretrainedConfig:
    """The architecture and sizes of the model in the file.

    Raises:
        UserError: the file is damaged, or its architecture is not supported.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    except READ_ERRORS as e:
        raise _unreadable(path, e) from None


def _model(path: Path, contents: Contents, dtype: str) -> PreTrainedModel:
    """The dequantised model, its config free of what marks it as quantised; a value for each of the file's."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except READ_ERRORS as e:
        raise _unreadable(path, e) from None
    num_parameters = sum(p.numel() for p in model.parameters())  # a tied head counts once, in the file as well
    if loaded["missing_keys"] or num_parameters != contents.num_values:
        known = ", ".join(sorted(loaded["missing_keys"])[:4])
        raise UserError(
            f"models: {path.name} ({contents.architecture}) holds {contents.num_values:,} values and transformers' "
            f"model has {num_parameters:,} weights{f', of which the file lacks {known}' if known else ''}; like "
            "this it would compute something else. Use the model's own checkpoint (a folder, or its hub id)."
        )
    model.config.__dict__.pop("quantization_config", None)
    model.config._name_or_path = contents.name
    return model


def _tokenizer(path: Path, contents: Contents) -> PreTrainedTokenizerFast:
    """The file's tokenizer, text split before BPE as its vocabulary was learnt."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except READ_ERRORS as e:
        raise _unreadable(path, e) from None
    if contents.metadata.get("tokenizer.ggml.model") == "gpt2":  # byte-level BPE
        name = contents.metadata.get("tokenizer.ggml.pre", "default")
        if name not in KNOWN_SPLITS:
            raise UserError(
                f"models: {path.name}: how its tokenizer splits text (tokenizer.ggml.pre={name!r}) is not known here, "
                f"so its ids could differ from those that the model was trained on. Known: {', '.join(KNOWN_SPLITS)}. "
                "Use the model's own checkpoint (a folder with tokenizer.json, or its hub id)."
            )
        if KNOWN_SPLITS[name] == "digits":
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
    return tokenizer


def _check_rope(path: Path, contents: Contents) -> None:
    """Raises UserError for positions that transformers reads no scaling of (Llama 3.1's frequencies, YaRN, ...)."""
    scaling = contents.metadata.get(f"{contents.architecture}.rope.scaling.type", "none")
    tensors = [name for name in contents.tensors if name.startswith("rope_")]
    if scaling != "none" or tensors:
        raise UserError(
            f"models: {path.name} scales its rotary positions ({', '.join(tensors) or scaling}), which is lost when "
            "transformers reads a GGUF file. Use the model's own checkpoint (a folder, or its hub id)."
        )


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UserError(
        f"models: {path} ({path.stat().st_size:,} bytes) cannot be read as a GGUF checkpoint: {reason}. A file that "
        "was cut off must be fetched anew; for an architecture or quantisation that is not supported, use another file "
        "of the same model (F16, Q8_0, Q4_1, ...) or its own checkpoint."
    )
