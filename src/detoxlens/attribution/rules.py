"""Backward rules of operations, for many gradients at once: a gradient is (targets, *shape of the output).

A rule gets `tracks` (does a tensor depend on the input?) and the operation's own arguments. It returns the operation's
result, and for each tensor in it that is new how gradients pass (`Taped`); or None where it does not apply. Operations
without a rule go through torch's own gradient and `torch.vmap`: right, and slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from detoxlens.attribution.attention import Attention
from detoxlens.attribution.quantized import dequantized, quantized_linear

Tracks = Callable[[object], bool]


class Taped(Protocol):
    """How gradients pass: `vjp(gradient, owned)` gives one per input, in the memory of its own where `owned`."""

    inputs: Sequence[Tensor]
    vjp: Callable[[Tensor, bool], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Rule:
    """The usual `Taped`."""

    inputs: Sequence[Tensor]
    vjp: Callable[[Tensor, bool], Sequence[Tensor]]


Result = tuple[object, list[tuple[Tensor, Taped]]]


def _one(output: Tensor, inputs: Sequence[Tensor], vjp: Callable[[Tensor, bool], Sequence[Tensor]]) -> Result:
    return output, [(output, Rule(inputs, vjp))]


def unbroadcast(gradient: Tensor, x: Tensor) -> Tensor:
    """(targets, *wide) -> (targets, *x.shape): summed over the axes along which x was repeated."""
    extra = gradient.ndim - 1 - x.ndim
    if extra:
        gradient = gradient.sum(list(range(1, 1 + extra)))
    repeated = [a + 1 for a in range(x.ndim) if x.shape[a] == 1 and gradient.shape[a + 1] != 1]
    return gradient.sum(repeated, keepdim=True) if repeated else gradient


def scaled(gradient: Tensor, owned: bool, factor: Tensor | float) -> Tensor:
    """gradient * factor, in the gradient's own memory where that is allowed."""
    return gradient.mul_(factor) if owned else gradient * factor


def linear(tracks: Tracks, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Result | None:
    if tracks(weight) or tracks(bias):
        return None
    return _one(F.linear(x, weight, bias), [x], lambda g, _: [torch.matmul(g, weight)])


def by_dequantized_weights(tracks: Tracks, x: Tensor, layer: nn.Module, forward) -> Result:
    """A layer with 8- or 4-bit weights; they are unpacked again for each gradient, not kept."""
    return _one(forward(x), [x], lambda g, _: [torch.matmul(g, dequantized(layer, g.dtype))])


def addmm(tracks: Tracks, bias: Tensor, x: Tensor, weight: Tensor) -> Result | None:
    """bias + x @ weight, GPT-2's linear layer."""
    if tracks(bias) or tracks(weight):
        return None
    return _one(torch.addmm(bias, x, weight), [x], lambda g, _: [torch.matmul(g, weight.T)])


def add(tracks: Tracks, x: Tensor, y: Tensor | float) -> Result:
    inputs = [a for a in (x, y) if tracks(a)]
    return _one(x + y, inputs, lambda g, _: [unbroadcast(g, a) for a in inputs])


def mul(tracks: Tracks, x: Tensor, y: Tensor | float) -> Result:
    pairs = [(a, b) for a, b in ((x, y), (y, x)) if tracks(a)]

    def vjp(gradient: Tensor, owned: bool) -> list[Tensor]:
        return [unbroadcast(scaled(gradient, owned and len(pairs) == 1, b), a) for a, b in pairs]

    return _one(x * y, [a for a, _ in pairs], vjp)


def neg(tracks: Tracks, x: Tensor) -> Result:
    return _one(-x, [x], lambda g, owned: [g.neg_() if owned else -g])


def cat(tracks: Tracks, tensors: Sequence[Tensor], dim: int = 0) -> Result | None:
    if any(t.ndim != tensors[0].ndim for t in tensors):
        return None
    axis = dim if dim >= 0 else dim + tensors[0].ndim
    starts = [sum(t.shape[axis] for t in tensors[:i]) for i in range(len(tensors))]
    parts = [(t, start) for t, start in zip(tensors, starts, strict=True) if tracks(t)]

    def vjp(gradient: Tensor, owned: bool) -> list[Tensor]:
        return [gradient.narrow(axis + 1, start, t.shape[axis]) for t, start in parts]

    return _one(torch.cat(tensors, dim), [t for t, _ in parts], vjp)


def same_elements(operation: Callable[..., Tensor]) -> Callable[..., Result | None]:
    """The rule of operations that copy elements, in their order, into another shape; as views they need none."""

    def rule(tracks: Tracks, x: Tensor, *args, **kwargs) -> Result | None:
        y = operation(x, *args, **kwargs)
        if tracks(y):
            return y, []
        return _one(y, [x], lambda g, _: [g.reshape(g.shape[0], *x.shape)])

    return rule


def pointwise(function: Callable[..., Tensor]) -> Callable[..., Result | None]:
    """The rule of an element-wise function: its derivative is computed once, not once per gradient."""

    def rule(tracks: Tracks, x: Tensor, *args, **kwargs) -> Result | None:
        if kwargs.get("inplace"):
            return None
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = function(leaf, *args, **kwargs)
        (derivative,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        return _one(y.detach(), [x], lambda g, owned: [scaled(g, owned, derivative)])

    return rule


def layer_norm(tracks: Tracks, x: Tensor, shape, weight=None, bias=None, eps: float = 1e-5) -> Result | None:
    if len(shape) != 1 or tracks(weight) or tracks(bias):
        return None
    y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)

    def vjp(gradient: Tensor, owned: bool) -> list[Tensor]:
        mask = [True, False, False]  # a target at a time stays in the cache
        found = [_layer_norm_gradient(g, x, shape, mean, rstd, weight, bias, mask)[0] for g in gradient]
        return [torch.stack(found)]

    return _one(y, [x], vjp)


_layer_norm_gradient = torch.ops.aten.native_layer_norm_backward


def scaled_dot_product_attention(
    tracks: Tracks, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Result | None:
    if tracks(attn_mask) or query.ndim != 4 or query.shape[-1] != value.shape[-1] or query.shape[2] != key.shape[2]:
        return None
    assert dropout_p == 0.0, "attribution runs in evaluation mode"
    taped = Attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
    output = taped.output()
    return output, [(output, taped)]


def any_operation(tracks: Tracks, func, args, kwargs) -> Result:
    """Any operation by torch's own gradient, all targets at once where torch can."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    inputs = [x for x in leaves if tracks(x)]
    with torch.enable_grad():
        copies = [x.detach().requires_grad_() for x in inputs]
        replaced = iter(copies)
        args, kwargs = pytree.tree_unflatten([next(replaced) if tracks(x) else x for x in leaves], spec)
        result = func(*args, **kwargs)
    entries = []

    def detached(y: object) -> object:
        if not isinstance(y, Tensor):
            return y
        z = y.detach()
        if y.requires_grad and not tracks(z):
            entries.append((z, Rule(inputs, _through_autograd(y, copies))))
        return z

    return pytree.tree_map(detached, result), entries


def _through_autograd(output: Tensor, inputs: Sequence[Tensor]) -> Callable[[Tensor, bool], Sequence[Tensor]]:
    def backward(gradient: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, inputs, gradient, retain_graph=True, materialize_grads=True)

    return lambda gradient, _: torch.vmap(backward)(gradient)


RULES: dict[Callable, Callable[..., Result | None]] = {
    F.linear: linear,
    quantized_linear: by_dequantized_weights,
    F.layer_norm: layer_norm,
    F.scaled_dot_product_attention: scaled_dot_product_attention,
    torch.addmm: addmm,
    torch.cat: cat,
    **dict.fromkeys((torch.neg, Tensor.neg, Tensor.__neg__), neg),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), add),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), mul),
    **{f: same_elements(f) for f in (torch.reshape, Tensor.reshape, Tensor.contiguous, Tensor.clone)},
    **{f: pointwise(f) for f in (F.gelu, F.silu, F.relu, torch.relu, torch.tanh, torch.sigmoid)},
}
"""By the function as the model calls it."""
