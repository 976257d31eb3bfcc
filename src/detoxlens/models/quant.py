"""8-bit and 4-bit weights by bitsandbytes. Dettmers et al. 2022 (arXiv 2208.07339), 2023 (arXiv 2305.14314, NF4)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from detoxlens.errors import UserError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

Quantization = Literal["8bit", "4bit"]


def quantization_config(quantization: Quantization, *, device: str, dtype: str, name: str) -> BitsAndBytesConfig:
    """What `from_pretrained` takes; computations stay in `dtype`.

    Args:
        quantization: of the linear layers' weights; embeddings and head stay as they are.
        device: e.g. "cuda:0".
        dtype: "bfloat16", "float16" or "float32".
        name: how messages call the model.

    Raises:
        UserError: no accelerator is asked for, or bitsandbytes is not installed.
    """
    if device == "cpu":
        raise UserError(
            f"{name}: quantization={quantization!r} needs an accelerator: set run.device to cuda, or quantization to "
            "null (dtype: bfloat16 halves the memory on CPU too)."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{name}: quantization={quantization!r} needs the package bitsandbytes: pip install -e '.[quant]' -c "
            "constraints.txt, or set quantization to null."
        )
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
