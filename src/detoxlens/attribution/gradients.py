"""One forward, the gradients of many generated tokens: the engine of `attribute`.

For sequences x_1 .. x_S and targets t predicted at positions s_t, `target_gradients` returns d f_t / d e_j, each
target's gradient with respect to the input embeddings, in three steps:

    1. one forward over the prefix that the targets share (later positions cannot matter to a causal model);
    2. one ordinary backward pass from sum_t f_t down to the last layer's attention output and its residual stream.
       Above them every position stands alone, so row s_t is target t's own gradient: the head (vocabulary-sized) and
       the last layer's MLP are paid for once, not once per target;
    3. the last attention by hand at one query per target, and one batched backward pass through the layers below.

Sequences are padded on the right: a causal model cannot see the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detoxlens.attribution.vjp import BatchedBackward, CutAttention, attention_probs
from detoxlens.errors import UserError


@dataclass(frozen=True, slots=True)
class Differentiable:
    """A causal language model prepared by `differentiable`."""

    model: nn.Module
    """The Hugging Face model, without PEFT's wrapper (the adapter's layers are inside)."""
    last_layer: nn.Module | None
    """The last decoder layer; None where none was recognised (then the cut is at the head's input)."""
    max_positions: int | None
    """Longest sequence the position embeddings allow, or None."""


@contextmanager
def differentiable(model: nn.Module) -> Iterator[Differentiable]:
    """`model` in evaluation mode, frozen, with an attention that can be differentiated; restored on leaving.

    Raises:
        UserError: the attention implementation has no usable backward, or the model is not a plain causal LM.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if any(getattr(c, "is_prompt_learning", False) for c in getattr(model, "peft_config", {}).values()):
        raise UserError("attribution: prompt-learning adapters add virtual tokens and cannot be attributed; use LoRA.")
    config = inner.config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"attribution: {type(inner).__name__} is an encoder-decoder; a causal language model is needed."
        )
    implementation = config._attn_implementation
    replaceable = (
        getattr(inner, "_supports_sdpa", False) and config.model_type != "falcon"
    )  # Falcon's is fixed at loading
    if implementation not in ("sdpa", "eager", None) and not replaceable:
        raise UserError(
            f"attribution: attention implementation {implementation!r} of {type(inner).__name__} cannot be "
            f"differentiated for many targets; load the model with attn_implementation='sdpa' or 'eager'."
        )
    trained = [p for p in model.parameters() if p.requires_grad]
    was_training = model.training
    try:
        if getattr(inner, "_supports_sdpa", False):
            config._attn_implementation = "sdpa"
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        yield Differentiable(inner, _last_layer(inner, config.num_hidden_layers), _max_positions(config))
    finally:
        config._attn_implementation = implementation
        model.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)


def _last_layer(model: nn.Module, num_layers: int) -> nn.Module | None:
    stacks = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers)
    return next((stack[-1] for stack in stacks), None)


def _max_positions(config) -> int | None:
    if getattr(config, "alibi", False):
        return None
    return getattr(config, "max_position_embeddings", None)


def target_gradients(
    prepared: Differentiable,
    embeddings: Tensor,
    positions: Tensor,
    valid: Tensor,
    value: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradients of many targets with respect to the input embeddings.

    Args:
        prepared: From `differentiable`.
        embeddings: (batch, seq, hidden), the input embeddings; right-padded.
        positions: (batch, targets), where each target is predicted; strictly rising along a row.
        valid: (batch, targets), False for a slot without a target.
        value: Maps logits (batch, targets, vocab) at `positions` to (batch, targets), the scalars to differentiate.

    Returns:
        (targets, batch, seq, hidden) gradients, zero behind each target's position and in slots without a target; and
        the detached logits (batch, targets, vocab) at `positions`, in float32 at least.
    """
    embeddings = embeddings.detach().requires_grad_()
    if prepared.last_layer is not None:
        graph = _Graph(prepared, embeddings, positions, cut_last_layer=True)
        gradients = graph.at_last_layer(value, valid)
        if gradients is not None:
            return gradients, graph.logits.detach()
    graph = _Graph(prepared, embeddings, positions, cut_last_layer=False)
    return graph.at_head(value, valid), graph.logits.detach()


class _Graph:
    """One forward with its graph, and the two places where targets are told apart."""

    def __init__(self, prepared: Differentiable, embeddings: Tensor, positions: Tensor, *, cut_last_layer: bool):
        self.embeddings, self.positions = embeddings, positions
        self.residual: Tensor | None = None
        first = int(positions.min())
        with BatchedBackward() as mode:

            def watch(_, args, kwargs) -> None:
                self.residual = args[0] if args else next(iter(kwargs.values()))
                if cut_last_layer:
                    mode.cut_next()

            watched = prepared.last_layer if cut_last_layer else prepared.model.get_output_embeddings()
            hook = watched.register_forward_pre_hook(watch, with_kwargs=True)
            try:
                output = prepared.model(
                    inputs_embeds=embeddings, use_cache=False, logits_to_keep=embeddings.shape[1] - first
                )
            finally:
                hook.remove()
        self.cut: CutAttention | None = mode.cut
        self.cut_is_last = mode.num_attentions_after_cut == 0
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None]
        logits = output.logits[rows, positions - first]  # (batch, targets, vocab)
        self.logits = logits.to(torch.promote_types(logits.dtype, torch.float32))

    def at_last_layer(self, value: Callable[[Tensor], Tensor], valid: Tensor) -> Tensor | None:
        """The gradients, cut inside the last layer; None where that layer mixes positions by other means too."""
        cut, residual = self.cut, self.residual
        if cut is None or not self.cut_is_last or residual is None:
            return None
        total = value(self.logits)[valid].sum()
        d_output, d_residual = torch.autograd.grad(total, [cut.output, residual], retain_graph=True)
        is_target = torch.zeros(residual.shape[:2], dtype=torch.bool, device=residual.device)
        is_target.scatter_(1, self.positions, True)
        if d_residual[~is_target].any():
            return None
        grads = [*self._query_gradients(cut, d_output, valid), self._spread(d_residual, valid)]
        return self._batched([cut.query, cut.key, cut.value, residual], grads)

    def at_head(self, value: Callable[[Tensor], Tensor], valid: Tensor) -> Tensor:
        """The gradients, cut at the head's input: right for any causal model, a little dearer."""
        head_input = self.residual
        assert head_input is not None
        (d_input,) = torch.autograd.grad(value(self.logits)[valid].sum(), head_input, retain_graph=True)
        offset = self.embeddings.shape[1] - head_input.shape[1]
        return self._batched([head_input], [self._spread(d_input, valid, offset)])

    def _batched(self, outputs: list[Tensor], grads: list[Tensor]) -> Tensor:
        (gradients,) = torch.autograd.grad(outputs, self.embeddings, grads, is_grads_batched=True)
        return gradients

    def _spread(self, gradient: Tensor, valid: Tensor, offset: int = 0) -> Tensor:
        """(batch, seq, hidden) -> (targets, batch, seq, hidden): each target keeps the row at its own position."""
        batch, targets = self.positions.shape
        spread = gradient.new_zeros(targets, *gradient.shape)
        slot, row = torch.arange(targets, device=gradient.device)[:, None], torch.arange(batch, device=gradient.device)
        at = (self.positions - offset).T  # (targets, batch)
        spread[slot, row, at] = gradient[row, at] * valid.T[..., None]
        return spread

    def _query_gradients(self, cut: CutAttention, d_output: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the last attention's query, key and value: one query per target, so a few small products."""
        batch, targets = self.positions.shape
        query, key, value = cut.query.detach(), cut.key.detach(), cut.value.detach()
        at = self.positions[:, None, :, None].expand(batch, query.shape[1], targets, query.shape[3])
        grad = d_output.gather(2, at) * valid[:, None, :, None]  # (batch, heads, targets, head)
        own = query.gather(2, at)
        mask = cut.mask
        if mask is not None:
            seq = key.shape[2]
            mask = mask.expand(batch, query.shape[1], seq, seq)
            mask = mask.gather(2, self.positions[:, None, :, None].expand(-1, query.shape[1], -1, seq))
        probs = attention_probs(own, key, mask, cut.scale)  # (batch, heads, targets, seq)
        d_probs = grad @ value.transpose(-1, -2)
        d_scores = probs * (d_probs - (probs * d_probs).sum(-1, keepdim=True)) * cut.scale
        slot, row = torch.arange(targets, device=query.device)[:, None], torch.arange(batch, device=query.device)
        d_query = query.new_zeros(targets, *query.shape)
        d_query[slot, row, :, self.positions.T] = (d_scores @ key).permute(2, 0, 1, 3)
        d_key = d_scores.permute(2, 0, 1, 3)[..., None] * own.permute(2, 0, 1, 3)[:, :, :, None]
        d_value = probs.permute(2, 0, 1, 3)[..., None] * grad.permute(2, 0, 1, 3)[:, :, :, None]
        return d_query, d_key, d_value
