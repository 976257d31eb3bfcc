"""Layers with 8- or 4-bit weights (bitsandbytes): their own forward, and the gradient of what their weights stand for.

    y = x W^T + b,    dy/dx = W,    W the dequantised weights

LLM.int8 rounds activations too, which has no derivative; its authors pass gradients through as well (Dettmers et al.
2022, arXiv 2208.07339). bitsandbytes' own backward does the same, but not for every layout of the weights on a CPU, and
where an engine cannot see it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

WEIGHTS = ("Params4bit", "Int8Params")
"""Classes of quantised weights, by name: bitsandbytes need not be installed to see that none is there."""


def is_quantized(layer: nn.Module) -> bool:
    """Whether it is such a linear layer itself, not an adapter around one."""
    return isinstance(layer, nn.Linear) and type(layer.weight).__name__ in WEIGHTS


def dequantized(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """The weights (out, in) that a quantised layer computes with."""
    from peft.utils.integrations import dequantize_bnb_weight

    return dequantize_bnb_weight(layer.weight, state=getattr(layer, "state", None)).detach().to(dtype)


def quantized_linear(x: Tensor, layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Tensor:
    """`forward(x)`, one operation to whoever watches, with a gradient everywhere."""
    if has_torch_function_unary(x):
        return handle_torch_function(quantized_linear, (x,), x, layer, forward)
    return _QuantizedLinear.apply(x, layer, forward)


@contextmanager
def differentiable_layers(model: nn.Module) -> Iterator[None]:
    """Inside, the model's quantised layers go through `quantized_linear`."""
    layers = [m for m in model.modules() if is_quantized(m)]
    own = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = functools.partial(quantized_linear, layer=layer, forward=layer.forward)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:  # accelerate's
                layer.forward = forward


class _QuantizedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.layer = layer
        return forward(x.detach()).clone()  # it may be a view, which a model could not change in place

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ dequantized(ctx.layer, gradient.dtype), None, None
