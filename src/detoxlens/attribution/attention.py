"""softmax(Q K' * scale + mask) V with its gradients for many targets at once: what the tape does at an attention."""

from __future__ import annotations

import torch
from torch import Tensor


class Attention:
    """One call of scaled-dot-product attention, its probabilities kept.

    Args:
        query: (batch, heads, seq, head).
        key: (batch, heads or a divisor of it, seq, head); grouped queries share their keys and values.
        value: as `key`.
        mask: added to the scores, or boolean (False is masked); broadcasts to (batch, heads, seq, seq).
        is_causal: a mask of -inf above the diagonal instead.
        scale: of the scores; None is head ** -0.5.
    """

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
    ) -> None:
        heads, seq, head = query.shape[1:]
        if is_causal:
            mask = torch.full((seq, seq), -torch.inf, dtype=query.dtype, device=query.device).triu_(1)
        elif mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
        self.inputs = (query, key, value)
        self.mask = mask
        self.scale = head**-0.5 if scale is None else scale
        self.repeats = [heads // t.shape[1] for t in self.inputs]
        self.query, self.key, self.value = (
            t.repeat_interleave(n, dim=1) if n > 1 else t for t, n in zip(self.inputs, self.repeats, strict=True)
        )
        self.probs = attention_probs(self.query, self.key, mask, self.scale)

    def output(self) -> Tensor:
        """(batch, heads, seq, head)"""
        return torch.matmul(self.probs, self.value)

    def vjp(self, gradient: Tensor, owned: bool) -> list[Tensor]:
        """(targets, batch, heads, seq, head) of the output -> the same of query, key and value."""
        return self._regrouped(attention_gradient(gradient, self.query, self.key, self.value, self.probs, self.scale))

    def vjp_at(self, gradient: Tensor, positions: Tensor, valid: Tensor) -> list[Tensor]:
        """The same where each target's gradient lies at one position: one query per target, so a few small products.

        Args:
            gradient: (batch, heads, seq, head), of which target t of row b has the row at positions[b, t].
            positions: (batch, targets).
            valid: (batch, targets), False for a slot without a target.
        """
        batch, targets = positions.shape
        query, key, value = self.query, self.key, self.value
        at = positions[:, None, :, None].expand(batch, query.shape[1], targets, query.shape[3])
        grad = gradient.gather(2, at) * valid[:, None, :, None]  # (batch, heads, targets, head)
        own, mask = query.gather(2, at), self.mask
        if mask is not None:
            seq = key.shape[2]
            mask = mask.expand(batch, query.shape[1], seq, seq)
            mask = mask.gather(2, positions[:, None, :, None].expand(-1, query.shape[1], -1, seq))
        probs = attention_probs(own, key, mask, self.scale)  # (batch, heads, targets, seq)
        d_probs = grad @ value.transpose(-1, -2)
        d_scores = probs * (d_probs - (probs * d_probs).sum(-1, keepdim=True)) * self.scale
        slot, row = torch.arange(targets, device=query.device)[:, None], torch.arange(batch, device=query.device)
        d_query = query.new_zeros(targets, *query.shape)
        d_query[slot, row, :, positions.T] = (d_scores @ key).permute(2, 0, 1, 3)
        d_key = d_scores.permute(2, 0, 1, 3)[..., None] * own.permute(2, 0, 1, 3)[:, :, :, None]
        d_value = probs.permute(2, 0, 1, 3)[..., None] * grad.permute(2, 0, 1, 3)[:, :, :, None]
        return self._regrouped((d_query, d_key, d_value))

    def _regrouped(self, gradients: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        return [g if n == 1 else g.unflatten(2, (-1, n)).sum(3) for g, n in zip(gradients, self.repeats, strict=True)]


def attention_probs(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(Q K' * scale + mask) over the keys, computed in float32 at least, returned in the query's dtype."""
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)


def attention_gradient(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, probs: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(targets, batch, heads, seq, head) gradients of query, key and value from that of the output.

    With A = probs and dA = grad V':  dS = A * (dA - sum_k A dA) * scale,  dQ = dS K,  dK = dS' Q,  dV = A' grad.
    The targets lie inside the positions, so that each of these is one product per head.
    """
    targets, batch, heads, seq, head = grad.shape
    query, key, value, probs = (t.reshape(batch * heads, *t.shape[2:]) for t in (query, key, value, probs))
    grad = grad.permute(1, 2, 3, 0, 4).reshape(batch * heads, seq * targets, head)
    d_scores = torch.bmm(grad, value.transpose(1, 2)).view(batch * heads, seq, targets, seq)
    d_scores.mul_(probs[:, :, None])
    d_scores.addcmul_(probs[:, :, None].expand_as(d_scores), d_scores.sum(-1, keepdim=True), value=-1).mul_(scale)
    d_query = torch.bmm(d_scores.view(batch * heads, seq * targets, seq), key)
    d_key = torch.bmm(d_scores.view(batch * heads, seq, targets * seq).transpose(1, 2), query)
    d_value = torch.bmm(probs.transpose(1, 2), grad.view(batch * heads, seq, targets * head))
    return (
        d_query.view(batch, heads, seq, targets, head).permute(3, 0, 1, 2, 4),
        d_key.view(batch, heads, targets, seq, head).permute(2, 0, 1, 3, 4),
        d_value.view(batch, heads, seq, targets, head).permute(3, 0, 1, 2, 4),
    )
