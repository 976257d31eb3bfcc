"""The arithmetic floor of gradient attribution: operations counted, over the rate that this machine reaches at them.

Counted is what no exact method can leave out, for a sequence of P prompt and N generated tokens. Target t has the
prefix n_t = P + t; h is the width, k the width of keys (= values), m the MLP's, v the vocabulary, L the layers:

    forward, once          2 (P + N) L (h (h + 2k) + h h + 2 h m)  +  4 h L pairs(P + N)  +  2 h v N
    head, backward         2 h v N
    last layer, backward   one position: 2 N (2 h h + 2 h m);  keys and values of the prefix: sum_t n_t (4 h k + 8 h)
    layers below           sum_t  (L - 1) (2 n_t (h (h + 2k) + h h + 2 h m)  +  8 h pairs(n_t))

pairs(n) = n (n + 1) / 2 are a causal attention's (query, key) pairs. A multiplication and an addition count as two.
Beside it stand the bytes of the element-wise work in the layers below (layer norm, activation, residual sums, rotary
embedding, softmax), each array read once and written once per target.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Widths of a decoder. Widths(hidden=256, keys=256, intermediate=1024, num_layers=4, num_heads=4, vocab=2048)"""

    hidden: int
    keys: int
    """Width of all keys together: `hidden`, or one head's with multi-query attention."""
    intermediate: int
    num_layers: int
    num_heads: int
    vocab: int

    @property
    def weights(self) -> int:
        """Weights in one layer's four matrices."""
        h, k, m = self.hidden, self.keys, self.intermediate
        return h * (h + 2 * k) + h * h + 2 * h * m


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What has to be done at least."""

    weight_flops: float
    """In products with weights, the head's included."""
    attention_flops: float
    """In products between positions."""
    elementwise_bytes: float


def count(shape: Widths, lengths: Sequence[tuple[int, int]], *, bytes_per_element: int) -> Work:
    """The work for sequences of the given (prompt, completion) lengths; the formulas above."""
    h, k, m, layers = shape.hidden, shape.keys, shape.intermediate, shape.num_layers
    weight = attention = elements = 0
    for prompt, generated in lengths:
        seq = prompt + generated - 1  # the last generated token is predicted, not read
        weight += 2 * seq * layers * shape.weights + 4 * h * shape.vocab * generated
        attention += 4 * h * layers * _pairs(seq)
        for n in range(prompt, prompt + generated):
            weight += 2 * (2 * h * h + 2 * h * m) + 4 * h * k * n
            attention += 8 * h * n
            weight += (layers - 1) * 2 * n * shape.weights
            attention += (layers - 1) * 8 * h * _pairs(n)
            elements += (layers - 1) * (n * (4 * h + 2 * m + 4 * h + 2 * (h + k)) + 2 * shape.num_heads * _pairs(n))
    return Work(weight_flops=weight, attention_flops=attention, elementwise_bytes=float(elements * bytes_per_element))


def _pairs(n: int) -> int:
    return n * (n + 1) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What this machine reaches, per second."""

    weight_flops: float
    attention_flops: float
    elementwise_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Seconds that the work takes at the measured rates."""

    matmul_seconds: float
    """The arithmetic floor."""
    elementwise_seconds: float


def floor(work: Work, rates: Rates) -> Floor:
    """The seconds of `work` at `rates`."""
    return Floor(
        matmul_seconds=work.weight_flops / rates.weight_flops + work.attention_flops / rates.attention_flops,
        elementwise_seconds=work.elementwise_bytes / rates.elementwise_bytes,
    )


def measure_rates(
    shape: Widths, *, seq: int, targets: int, device: str, dtype: torch.dtype, seconds_each: float = 0.2
) -> Rates:
    """The best rate of products at the shapes that attribution uses: `targets` gradients over `seq` positions at once.

    Args:
        shape: the model's.
        seq: positions of a prefix.
        targets: generated tokens per pass.
        device: where.
        dtype: of the products.
        seconds_each: how long each product is tried.
    """
    generator = torch.Generator(device).manual_seed(0)

    def matrix(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=dtype)

    h, m, qkv, rows = shape.hidden, shape.intermediate, shape.hidden + 2 * shape.keys, targets * seq
    # Backward through the four matrices: (rows, out) @ (out, in).
    pairs = [(matrix(rows, out), matrix(out, inner)) for out, inner in ((qkv, h), (h, h), (m, h), (h, m))]
    weight_time = sum(best_seconds(partial(torch.matmul, a, b), device, seconds_each) for a, b in pairs)
    heads, head = shape.num_heads, shape.hidden // shape.num_heads
    grad, value = matrix(heads, rows, head), matrix(heads, head, seq)
    attention_time = best_seconds(lambda: grad @ value, device, seconds_each)
    first, second, out = matrix(rows, h), matrix(rows, h), matrix(rows, h)
    elementwise_time = best_seconds(lambda: torch.mul(first, second, out=out), device, seconds_each)
    return Rates(
        weight_flops=2 * rows * shape.weights / weight_time,
        attention_flops=2 * heads * rows * head * seq / attention_time,
        elementwise_bytes=3 * rows * h * first.element_size() / elementwise_time,
    )


def best_seconds(work: Callable[[], object], device: str, seconds: float) -> float:
    """The shortest of the runs of `work` that fit into `seconds`, five at least: noise only ever adds."""
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - started < seconds:
        times.append(timed(work, device)[0])
    return min(times)


def timed(work: Callable[[], object], device: str) -> tuple[float, object]:
    """Wall seconds of `work`, the device's queue run dry before and after, and what it returned."""
    is_cuda = device.startswith("cuda")
    if is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, result
