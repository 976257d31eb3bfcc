"""A tape of one forward that can be walked backward with many gradients at once.

`torch.autograd.grad(..., is_grads_batched=True)` also pushes many gradients through one graph, but loops over them where
an operation has no batching rule, and copies wherever axes move. `Tape` watches the operations of a forward instead and
keeps, for each that depends on the input, how gradients of shape (targets, ...) go through it (`rules.py`).

Views need no rule: a result that shares its input's memory has as its gradient the same view of the gradient. So the
queries, keys and values of one projection, split and rotated, write into one buffer in the projection's own layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
        return isinstance(x, Tensor) and _address(x) in self._bases

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tracked = [x for x in _tensors((*args, *kwargs.values())) if self.tracks(x)]
        if not tracked:
            return func(*args, **kwargs)
        if func is Tensor.detach:
            return args[0].clone()
        if func is Tensor.add_:
            return self._add_in_place(*args, **kwargs)
        rule = RULES.get(func)
        found = rule(self.tracks, *args, **kwargs) if rule else None
        if found is None:
            versions = [x._version for x in tracked]
            result = func(*args, **kwargs)
            if versions != [x._version for x in tracked]:
                raise NotTapeable(f"{func} changes an activation in place")
            fresh = [x for x in _tensors((result,)) if x.is_floating_point() and not self.tracks(x)]
            if not fresh:
                return result
            found = any_operation(self.tracks, func, args, kwargs)
        output, entries = found
        for result, taped in entries:
            self._record(result, taped)
        return output

    def _record(self, output: Tensor, taped: Taped) -> None:
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
            uses = Counter(_address(g) for g in found)
            for x, gradient in zip(operation.taped.inputs, found, strict=True):
                at = _address(gradient)
                gradients.add(x, gradient, owned=uses[at] == 1 and (held.owned or at != _address(held.value)))
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

    def pop(self, x: Tensor) -> _Held | None:
        """What was added for a tensor that is no view, taken out; None where nothing was."""
        return self._held.pop(_address(x), None)

    def of(self, x: Tensor) -> Tensor | None:
        """The sum so far for `x`, a tensor or a view of one: (targets, *x.shape); None where nothing was added."""
        held = self._held.get(_address(x))
        if held is None or _same_place(x, self._bases[_address(x)]):
            return held and held.value
        return self._view(self._laid_out(_address(x)), x)

    def add(self, x: Tensor, gradient: Tensor, *, owned: bool) -> None:
        """Adds the gradient of `x`, a tensor of the forward or a view of one."""
        at = _address(x)
        base, held = self._bases[at], self._held.get(at)
        if _same_place(x, base):
            if held is None:
                self._held[at] = _Held(gradient, owned)
            elif held.owned:
                held.value.add_(gradient)
            else:
                self._held[at] = _Held(gradient.add_(held.value) if owned else gradient + held.value, True)
            return
        repeated = [axis for axis in range(x.ndim) if x.stride(axis) == 0 and x.shape[axis] > 1]
        if repeated:
            gradient = gradient.sum([axis + 1 for axis in repeated], keepdim=True)
            x = x[tuple(slice(1) if axis in repeated else slice(None) for axis in range(x.ndim))]
        if held is None:
            self._held[at] = _Held(_like(base, gradient).zero_(), True)
        self._view(self._laid_out(at), x).add_(gradient)

    def _laid_out(self, at: int) -> Tensor:
        """The gradient of a base, each target's part laid out in memory as the base is, and nobody else's."""
        base, held = self._bases[at], self._held[at]
        if not held.owned or held.value.stride()[1:] != base.stride():
            held = self._held[at] = _Held(_like(base, held.value).copy_(held.value), True)
        return held.value

    def _view(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The part of a base's gradient that belongs to its view `x`."""
        offset = x.storage_offset() - self._bases[_address(x)].storage_offset()
        shape, strides = (gradient.shape[0], *x.shape), (gradient.stride(0), *x.stride())
        return gradient.as_strided(shape, strides, offset)


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _same_place(x: Tensor, base: Tensor) -> bool:
    return x.shape == base.shape and x.stride() == base.stride() and x.storage_offset() == base.storage_offset()


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def _like(base: Tensor, gradient: Tensor) -> Tensor:
    """An empty (targets, *base.shape) whose targets are each laid out as `base` is."""
    targets = gradient.shape[0]
    return gradient.new_empty(targets * base.numel()).as_strided(
        (targets, *base.shape), (base.numel(), *base.stride())
    )


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
