"""Batched vector-Jacobian products: what makes many backward passes through one forward cheap.

`torch.autograd.grad(..., is_grads_batched=True)` pushes many gradients through one graph, but unrolls every operation
that has no batching rule into a loop with a copy per gradient. `BatchedBackward` replaces such operations of a
transformer while a forward runs, for any Hugging Face model:

    attention     softmax(Q K' * scale + mask) V, the probabilities kept; its backward takes all gradients at once
    layer norm    torch's fused backward over all gradients at once
    activation    the derivative kept; its backward is one multiplication
    x[..., :n]    taken together with x[..., n:] as one split, whose backward is one concatenation (rotary embeddings)

It can also *cut* the last layer's attention: its output is handed on as a leaf, so that everything above acts on each
position alone and one ordinary backward pass yields the gradient of every target with respect to its own position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

ACTIVATIONS = (F.gelu, F.silu, F.relu, torch.relu, torch.tanh, torch.sigmoid)


@dataclass(frozen=True, slots=True)
class CutAttention:
    """The last layer's attention, `output` a leaf that no longer depends on `query`, `key` and `value`."""

    query: Tensor  # (batch, heads, seq, head)
    key: Tensor
    value: Tensor
    mask: Tensor | None  # added to the scores; broadcasts to (batch, heads, seq, seq)
    scale: float
    output: Tensor  # (batch, heads, seq, head)


class BatchedBackward(TorchFunctionMode):
    """Context in which a forward builds a graph that `is_grads_batched` walks fast. `cut_next()` arms the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: CutAttention | None = None
        self.num_attentions_after_cut = 0
        self._armed = False
        self._splits: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def cut_next(self) -> None:
        """Makes the next attention's output a leaf, kept in `self.cut`."""
        self._armed = True

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func in ACTIVATIONS and not kwargs.get("inplace"):
            return Pointwise.apply(args[0], lambda x: func(x, *args[1:], **kwargs))
        if func is Tensor.__getitem__ and (at := _split_point(*args)) is not None:
            return self._halves(args[0], at)[args[1][1].start is not None]
        return func(*args, **kwargs)

    def _halves(self, x: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """x[..., :at] and x[..., at:] from one split; x is kept, so that its id stays its own."""
        key = (id(x), at)
        if key not in self._splits:
            self._splits[key] = (*x.split([at, x.shape[-1] - at], dim=-1), x)
        return self._splits[key][:2]

    def _attention(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ) -> Tensor:
        assert dropout_p == 0.0, "attribution runs in evaluation mode"
        heads, seq = query.shape[1], query.shape[2]
        if enable_gqa:
            key, value = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (key, value))
        key, value = (t.expand(-1, heads, -1, -1) for t in (key, value))  # Falcon's one key for all queries
        if is_causal:
            attn_mask = torch.full((seq, seq), -torch.inf, dtype=query.dtype, device=query.device).triu_(1)
        elif attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -torch.inf)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        output = Attention.apply(query, key, value, attn_mask, scale)
        if self.cut is not None:
            self.num_attentions_after_cut += 1
        if self._armed:
            output, self._armed = output.detach().requires_grad_(), False
            self.cut = CutAttention(query, key, value, attn_mask, scale, output)
        return output


def _split_point(x: Tensor, index) -> int | None:
    """n for the index of x[..., :n] and of x[..., n:] with 0 < n < length, else None."""
    if not (isinstance(index, tuple) and len(index) == 2 and index[0] is Ellipsis and isinstance(index[1], slice)):
        return None
    start, stop, step = index[1].start, index[1].stop, index[1].step
    if step is not None or (start is None) == (stop is None) or not x.requires_grad:
        return None
    at = stop if start is None else start
    return at if isinstance(at, int) and 0 < at < x.shape[-1] else None


def attention_probs(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(Q K' * scale + mask) over the keys, computed in float32 at least, returned in the query's dtype."""
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)


class Attention(torch.autograd.Function):
    """softmax(Q K' * scale + mask) V over (batch, heads, seq, head)."""

    @staticmethod
    def forward(ctx, query, key, value, mask, scale):
        probs = attention_probs(query, key, mask, scale)
        ctx.scale = scale
        ctx.save_for_backward(query, key, value, probs)
        return torch.matmul(probs, value)

    @staticmethod
    def backward(ctx, grad):
        return *AttentionGradient.apply(grad, *ctx.saved_tensors, ctx.scale), None, None


class AttentionGradient(torch.autograd.Function):
    """Gradients of query, key and value; under vmap, of all targets at once."""

    @staticmethod
    def forward(grad, query, key, value, probs, scale):
        return tuple(g[0] for g in attention_gradient(grad[None], query, key, value, probs, scale))

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Nothing is kept: there is no second derivative."""

    @staticmethod
    def vmap(info, in_dims, grad, query, key, value, probs, scale):
        return attention_gradient(grad.movedim(in_dims[0], 0), query, key, value, probs, scale), (0, 0, 0)


def attention_gradient(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, probs: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(targets, batch, heads, seq, head) gradients of query, key and value from that of the output.

    With A = probs and dA = grad V':  dS = A * (dA - sum_k A dA) * scale,  dQ = dS K,  dK = dS' Q,  dV = A' grad.
    """
    targets, batch, heads, seq, head = grad.shape
    query, key, value, probs = (t.reshape(batch * heads, *t.shape[2:]) for t in (query, key, value, probs))
    grad = grad.permute(1, 2, 0, 3, 4).reshape(batch * heads, targets * seq, head)
    d_scores = torch.bmm(grad, value.transpose(1, 2)).view(batch * heads, targets, seq, seq)
    d_scores.mul_(probs[:, None])
    d_scores.addcmul_(probs[:, None].expand_as(d_scores), d_scores.sum(-1, keepdim=True), value=-1).mul_(scale)
    d_query = torch.bmm(d_scores.view(batch * heads, targets * seq, seq), key)
    d_key = torch.matmul(d_scores.transpose(-1, -2), query[:, None])
    d_value = torch.matmul(probs.transpose(-1, -2)[:, None], grad.view(batch * heads, targets, seq, head))
    return tuple(g.view(batch, heads, targets, seq, head).permute(2, 0, 1, 3, 4) for g in (d_query, d_key, d_value))


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5) -> Tensor:
    if len(normalized_shape) != 1:
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    return LayerNorm.apply(input, weight, bias, eps)


class LayerNorm(torch.autograd.Function):
    """F.layer_norm over the last axis; the gradients of weight and bias are not computed (they are frozen)."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight)
        return y

    @staticmethod
    def backward(ctx, grad):
        return LayerNormGradient.apply(grad, *ctx.saved_tensors), None, None, None


class LayerNormGradient(torch.autograd.Function):
    """Gradient of the input; under vmap, of all targets in one call of the fused kernel."""

    @staticmethod
    def forward(grad, x, mean, rstd, weight):
        only_input = [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(grad, x, x.shape[-1:], mean, rstd, weight, None, only_input)[0]

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Nothing is kept: there is no second derivative."""

    @staticmethod
    def vmap(info, in_dims, grad, x, mean, rstd, weight):
        grad = grad.movedim(in_dims[0], 0).contiguous()
        x, mean, rstd = (t.expand(info.batch_size, *t.shape).contiguous() for t in (x, mean, rstd))
        return LayerNormGradient.forward(grad, x, mean, rstd, weight), 0


class Pointwise(torch.autograd.Function):
    """An element-wise function whose derivative is computed once, not once per gradient."""

    @staticmethod
    def forward(ctx, x, function):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = function(leaf)
            (derivative,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        ctx.save_for_backward(derivative)
        return y.detach()

    @staticmethod
    def backward(ctx, grad):
        (derivative,) = ctx.saved_tensors
        return grad * derivative, None
