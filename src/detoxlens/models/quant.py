"""8-bit and 4-bit weights by bitsandbytes. Dettmers et al. 2022 (arXiv 2208.07339), 2023 (arXiv 2305.14314, NF4).

LLM.int8 looks for outliers over the whole batch: with 8 bits a row's logits, and with them its samples, depend a little
on the rows beside it. With 4 bits they do not.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from detoxlens.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import BitsAndBytesConfig

Quantization = Literal["8bit", "4bit"]


def quantization_config(quantization: Quantization, *, device: str, dtype: str, name: str) -> BitsAndBytesConfig:
    """What `from_pretrained` takes; computations stay in `dtype`.

    Args:
        quantization: of the linear layers' weights; embeddings and head stay as they are.
        device: "cuda:0", or "cpu", where it saves memory and costs time.
        dtype: "bfloat16", "float16" or "float32".
        name: how messages call the model.

    Raises:
        UserError: bitsandbytes is not installed, or has no code for the device.
    """
    if device.startswith("mps"):
        raise UserError(
            f"{name}: quantization={quantization!r} does not work on {device}: set run.device to cuda or cpu, or "
            "quantization to null (dtype: bfloat16 halves the memory)."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{name}: quantization={quantization!r} needs the package bitsandbytes: pip install -e '.[quant]' -c "
            "constraints.txt, or set quantization to null."
        )
    import torch
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells each layer that 8-bit products take float16
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


@contextmanager
def convertible_layers() -> Iterator[None]:
    """Inside, models are built of layers that transformers converts.

    transformers 5 passes over subclasses of `nn.Linear`, with a warning at most: Falcon would be loaded whole. Its own
    linear layer computes what `nn.Linear` does.
    """
    from torch import nn
    from transformers.models.falcon import modeling_falcon

    own = modeling_falcon.FalconLinear
    modeling_falcon.FalconLinear = nn.Linear
    try:
        yield
    finally:
        modeling_falcon.FalconLinear = own


def make_differentiable(model: nn.Module, quantization: Quantization, *, name: str) -> None:
    """Makes the converted layers ready for gradients.

    Raises:
        UserError: none of the model's layers has been converted.
    """
    layers = [module for module in model.modules() if type(module).__module__.startswith("bitsandbytes.")]
    if not layers:
        raise UserError(
            f"{name}: quantization={quantization!r} left every layer of {type(model).__name__} as it was, because "
            "transformers does not know how to convert them; set quantization to null and choose a shorter dtype."
        )
    for layer in layers:  # on a CPU with AVX-512 a 4-bit layer packs its weights on first use: then it has no gradient
        layer.support_avx512bf16_for_cpu = False
        layer.register_forward_hook(_of_its_own)


def _of_its_own(layer: nn.Module, args: object, output: Tensor) -> Tensor:
    """An 8-bit layer's output is a view that torch lets nobody change in place, which Falcon does."""
    return output.clone() if output.requires_grad else output
