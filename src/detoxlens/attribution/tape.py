"""A tape of one forward that can be walked backward with many gradients at once.

`torch.autograd.grad(..., is_grads_batched=True)` pushes many gradients through one graph too, but loops over them where
an operation has no batching rule, and copies wherever axes move. `Tape` watches the operations of a forward instead,
and keeps, for each that depends on the input, how gradients of shape (targets, ...) go through it (`rules.py`).

Views need no rule: a result that shares its input's memory has as its gradient the same view of the gradient. So the
queries, keys and values of one projection, split and rotated, write into one buffer in the projection's own layout.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from detoxlens.attribution.rules import RULES, Taped, add, any_operation


class NotTapeable(Exception):
    """The model does something to its activations that the tape cannot follow, such as changing them in place."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the forward: how its output's gradient becomes its inputs'."""

    output: Tensor
    taped: Taped


class Tape(TorchFunctionMode):
    """Context in which a forward is recorded, from `root` on. Run it without autograd."""

    def __init__(self, root: Tensor) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._bases: dict[int, Tensor] = {}
        """By address of the memory. The tape keeps them alive, so no other tensor comes to lie there."""
        self._used: set[int] = set()
        self._add_base(root)

    def tracks(self, x: object) -> bool:
        """Whether `x` is, or is a view of, a tensor that depends on the root."""
        return isinstance(x, Tensor) and _address(x) in self._bases and x.numel() > 0  # empty ones all lie at 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ == "__get__":  # shape, dtype, device, ...
            return func(*args, **kwargs)
        tracked = [x for x in _tensors((*args, *kwargs.values())) if self.tracks(x)]
        if not tracked:
            return func(*args, **kwargs)
        if func in (Tensor.detach, torch.detach):
            return args[0].clone()
        if func is Tensor.add_ and not kwargs:
            return self._add_in_place(*args)
        rule = RULES.get(func)
        found = rule(self.tracks, *args, **kwargs) if rule and _takes(rule, kwargs) else None
        if found is None:
            given = list(_tensors((*args, *kwargs.values())))
            versions = [x._version for x in given]
            result = func(*args, **kwargs)
            if versions != [x._version for x in given]:
                raise NotTapeable(f"{func} changes a tensor in place")
            if any(x.is_complex() for x in _tensors((result,))):
                raise NotTapeable(f"{func} gives complex numbers")
            fresh = [x for x in _tensors((result,)) if x.is_floating_point() and not self.tracks(x)]
            if not fresh:
                return result
            found = any_operation(self.tracks, func, args, kwargs)
        output, entries = found
        for result, taped in entries:
            self._record(result, taped)
        return output

    def _record(self, output: Tensor, taped: Taped) -> None:
        if output.numel() == 0:
            return
        if not self.tracks(output):
            self._add_base(output)
        self._used.update(map(_address, taped.inputs))
        self.operations.append(Operation(output, taped))

    def _add_in_place(self, x: Tensor, y: Tensor | float) -> Tensor:
        """x += y. What nobody has read yet can as well be taken for a new tensor that lies where x lay."""
        if self.tracks(x) and (_address(x) in self._used or not _same_place(x, self._bases[_address(x)])):
            raise NotTapeable("an activation that was used before is changed in place")
        _, [(_, taped)] = add(self.tracks, x, y)
        self._record(x.add_(y), taped)
        return x

    def _add_base(self, x: Tensor) -> None:
        if not _is_dense(x):
            raise NotTapeable("an activation overlaps itself in memory")
        self._bases[_address(x)] = x

    def backward(self, seeds: Iterable[tuple[Tensor, Tensor]], operations: Sequence[Operation]) -> Gradients:
        """Gradients of what lies before `operations`, from those of what lies behind them.

        Args:
            seeds: tensors of the forward with their gradients, (targets, *shape) each.
            operations: a part of `self.operations`, in their order.
        """
        gradients = Gradients(self._bases)
        for x, gradient in seeds:
            gradients.add(x, gradient, owned=False)
        for operation in reversed(operations):
            held = gradients.pop(operation.output)
            if held is None:
                continue
            found = operation.taped.vjp(held.value, held.owned)
            shared = None if held.owned else _address(held.value)
            for x, gradient in zip(operation.taped.inputs, found, strict=True):
                if not self.tracks(x):
                    continue
                at = _address(gradient)
                gradients.add(x, gradient, owned=at != shared and sum(_address(g) == at for g in found) == 1)
        return gradients


@dataclass(slots=True)
class _Held:
    value: Tensor
    owned: bool
    """Nobody else looks at the value: it may be changed in place."""


class Gradients:
    """Sums of gradients, by the tensor of the forward whose they are."""

    def __init__(self, bases: dict[int, Tensor]) -> None:
        self._bases = bases
        self._held: dict[int, _Held] = {}
        self._parts: dict[int, list[Part]] = {}
        """Views of a base with their gradients, not yet added to what is held for the base."""

    def add(self, x: Tensor, gradient: Tensor, *, owned: bool) -> None:
        """Adds the gradient of `x`, a tensor of the forward or a view of one."""
        at = _address(x)
        if gradient.dtype != x.dtype:
            gradient, owned = gradient.to(x.dtype), True
        if any(stride == 0 and size > 1 for size, stride in zip(gradient.shape, gradient.stride(), strict=True)):
            owned = False  # an expanded gradient cannot be written to
        held = self._held.get(at)
        if not _same_place(x, self._bases[at]):
            self._parts.setdefault(at, []).append((x, gradient))
        elif held is None:
            self._held[at] = _Held(gradient, owned)
        elif held.owned:
            held.value.add_(gradient)
        else:
            self._held[at] = _Held(gradient.add_(held.value) if owned else gradient + held.value, True)

    def only_of(self, *tensors: Tensor) -> bool:
        """Whether nothing was added but for these tensors."""
        return {*self._held, *self._parts} <= {_address(x) for x in tensors}

    def pop(self, x: Tensor) -> _Held | None:
        """What was added for a tensor that is no view, taken out; None where nothing was."""
        self._add_parts(x)
        return self._held.pop(_address(x), None)

    def of(self, x: Tensor) -> Tensor | None:
        """The sum so far for `x`, a tensor or a view of one: (targets, *x.shape); None where nothing was added."""
        self._add_parts(x)
        held, base = self._held.get(_address(x)), self._bases[_address(x)]
        if held is None or _same_place(x, base):
            return held and held.value
        return _part(_laid_out(held.value, base), x, base)

    def _add_parts(self, x: Tensor) -> None:
        at = _address(x)
        parts, held, base = self._parts.pop(at, None), self._held.get(at), self._bases[at]
        if parts is None:
            return
        parts = [_without_repeats(view, gradient) for view, gradient in parts]
        covering, rest = [], parts
        if held is None:
            covering, rest = _covering(parts, base)
        value = _empty(base, parts[0][1]) if held is None else _laid_out(held.value, base)
        if held is None and not covering:
            value.zero_()
        for view, gradient in covering:
            _part(value, view, base).copy_(gradient)
        for view, gradient in rest:
            _part(value, view, base).add_(gradient)
        self._held[at] = _Held(value, True)


def _without_repeats(x: Tensor, gradient: Tensor) -> Part:
    """An expanded view and its gradient, summed over the axes along which the same memory is seen again."""
    repeated = [axis for axis in range(x.ndim) if x.stride(axis) == 0 and x.shape[axis] > 1]
    if not repeated:
        return x, gradient
    once = tuple(slice(1) if axis in repeated else slice(None) for axis in range(x.ndim))
    return x[once], gradient.sum([axis + 1 for axis in repeated], keepdim=True)


Part = tuple[Tensor, Tensor]
"""A view of a base, and its gradient."""


def _covering(parts: Sequence[Part], base: Tensor) -> tuple[list[Part], list[Part]]:
    """Parts whose views are slices along the last axis that cover all of `base` once, and the others.

    The first list is empty where no such slices are found.
    """
    covering: list[Part] = []
    rest: list[Part] = []
    for part in sorted(parts, key=lambda part: (part[0].storage_offset(), -part[0].numel())):
        view, last = part[0], covering[-1][0] if covering else None
        fits = last is None or view.storage_offset() == last.storage_offset() + last.shape[-1]
        (covering if fits else rest).append(part)
    first = covering[0][0]
    alike = all(v.shape[:-1] == first.shape[:-1] and v.stride() == first.stride() for v, _ in covering)
    length = sum(view.shape[-1] for view, _ in covering)
    if not alike or first.stride(-1) != 1 or first.shape[:-1].numel() * length != base.numel():
        return [], list(parts)
    whole = first.as_strided((*first.shape[:-1], length), first.stride())
    return (covering, rest) if _is_dense(whole) else ([], list(parts))


def _part(gradient: Tensor, x: Tensor, base: Tensor) -> Tensor:
    """The part of a laid out gradient that belongs to `x`, a view of `base`."""
    offset = x.storage_offset() - base.storage_offset()
    return gradient.as_strided((gradient.shape[0], *x.shape), (gradient.stride(0), *x.stride()), offset)


def _laid_out(gradient: Tensor, base: Tensor) -> Tensor:
    """A copy of a gradient in which each target's part lies in memory as `base` does."""
    return _empty(base, gradient).copy_(gradient)


def _empty(base: Tensor, gradient: Tensor) -> Tensor:
    targets = gradient.shape[0]
    flat = gradient.new_empty(targets * base.numel())
    return flat.as_strided((targets, *base.shape), (base.numel(), *base.stride()))


def _takes(rule: Callable[..., object], kwargs: dict[str, object]) -> bool:
    """Whether the rule knows these keywords; where it does not, torch's own gradient is taken."""
    known = _keywords(rule) if kwargs else frozenset()
    return known is None or kwargs.keys() <= known


@functools.cache
def _keywords(rule: Callable[..., object]) -> frozenset[str] | None:
    """The keywords that a rule takes; None: any."""
    parameters = inspect.signature(rule).parameters
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else frozenset(parameters)


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _same_place(x: Tensor, base: Tensor) -> bool:
    return x.shape == base.shape and x.stride() == base.stride() and x.storage_offset() == base.storage_offset()


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
