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

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detoxlens.attribution.attention import Attention
from detoxlens.attribution.quantized import differentiable_layers
from detoxlens.attribution.tape import NotTapeable, Tape
from detoxlens.common.errors import UserError
from detoxlens.models.forward import decoder_layers


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
    was_training = {module: module.training for module in model.modules()}
    try:
        if getattr(inner, "_supports_sdpa", False):
            config._attn_implementation = "sdpa"
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        with differentiable_layers(inner):
            layers = decoder_layers(inner)
            yield Differentiable(inner, layers[-1] if layers else None, _max_positions(config))
    finally:
        config._attn_implementation = implementation
        for module, mode in was_training.items():
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)


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

    Raises:
        NotTapeable: the model does what the tape cannot follow; `gradients_by_autograd` can.
    """
    forward = _Forward(prepared, embeddings, positions)
    return forward.gradients(value, valid), forward.logits


def middle_target_by_autograd(
    prepared: Differentiable,
    embeddings: Tensor,
    positions: Tensor,
    valid: Tensor,
    value: Callable[[Tensor], Tensor],
) -> tuple[int, Tensor, Tensor]:
    """One of the targets again, by torch's own graph, from the tokens up to it alone.

    Returns:
        its slot, (batch, shorter, hidden) gradients, and the logits (batch, vocab) at its positions.
    """
    slot = (positions.shape[1] - 1) // 2
    end = int(positions[:, slot].max()) + 1
    cut = embeddings[:, :end], positions.clamp(max=end - 1)
    (gradient,), logits = gradients_by_autograd(prepared, *cut, valid, value, slots=[slot])
    return slot, gradient, logits[:, slot]


def gradients_by_autograd(
    prepared: Differentiable,
    embeddings: Tensor,
    positions: Tensor,
    valid: Tensor,
    value: Callable[[Tensor], Tensor],
    slots: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """`target_gradients` by torch's own graph, one target after another, or of some of the targets' `slots`."""
    with torch.enable_grad():
        leaf = embeddings.detach().requires_grad_()
        logits = prepared.model(inputs_embeds=leaf.clone(), use_cache=False).logits  # a model may change its input
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        logits = logits[rows, positions]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        values = value(logits) * valid
        slots = range(values.shape[1]) if slots is None else slots
        gradients = [torch.autograd.grad(values[:, s].sum(), leaf, retain_graph=True)[0] for s in slots]
    return torch.stack(gradients), logits.detach()


class _Forward:
    """One taped forward, and the place where its targets are separated."""

    def __init__(self, prepared: Differentiable, embeddings: Tensor, positions: Tensor):
        embeddings = embeddings.clone()  # a model may change its input
        self.embeddings, self.positions = embeddings, positions
        self.stages: dict[str, tuple[Tensor, int]] = {}
        self.tape = Tape(embeddings)
        takes_keep = "logits_to_keep" in inspect.signature(prepared.model.forward).parameters
        keep = {"logits_to_keep": embeddings.shape[1] - int(positions.min())} if takes_keep else {}

        def watch(name: str):
            def hook(_, args, kwargs) -> None:
                self.stages[name] = (args[0] if args else next(iter(kwargs.values())), len(self.tape.operations))

            return hook

        watched = {"head": prepared.model.get_output_embeddings(), "last_layer": prepared.last_layer}
        hooks = [m.register_forward_pre_hook(watch(n), with_kwargs=True) for n, m in watched.items() if m is not None]
        try:
            with torch.no_grad(), self.tape:
                output = prepared.model(inputs_embeds=embeddings, use_cache=False, **keep)
        finally:
            for hook in hooks:
                hook.remove()
        self.output = output.logits
        first = embeddings.shape[1] - output.logits.shape[1]
        self.rows = torch.arange(positions.shape[0], device=positions.device)[:, None]
        logits = output.logits[self.rows, positions - first]  # (batch, targets, vocab)
        self.logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        self.first = first

    def gradients(self, value: Callable[[Tensor], Tensor], valid: Tensor) -> Tensor:
        """(targets, batch, seq, hidden)"""
        if not self.tape.tracks(self.output):
            raise NotTapeable("hidden operations lie between the embeddings and the logits")
        logits = self.logits.detach().requires_grad_()
        with torch.enable_grad():
            (d_logits,) = torch.autograd.grad(value(logits)[valid].sum(), logits)
        seed = torch.zeros_like(self.output)
        # Valid slots of a row stand at different positions; slots without a target repeat one and weigh nothing.
        seed.index_put_((self.rows, self.positions - self.first), d_logits.to(seed.dtype), accumulate=True)
        seeds, end = self._at_last_layer(seed, valid) or self._at_head(seed, valid)
        found = self.tape.backward(seeds, self.tape.operations[:end]).of(self.embeddings)
        if found is None:
            raise NotTapeable("hidden operations lie between the embeddings and the last layer")
        return found

    def _at_last_layer(self, seed: Tensor, valid: Tensor) -> tuple[list[tuple[Tensor, Tensor]], int] | None:
        """Gradients at the last layer's attention and residual stream; None where that layer mixes positions by other
        means too."""
        if "last_layer" not in self.stages:
            return None
        residual, start = self.stages["last_layer"]
        if not self.tape.tracks(residual):
            return None
        operations = self.tape.operations
        attentions = [i for i in range(start, len(operations)) if isinstance(operations[i].taped, Attention)]
        if len(attentions) != 1:
            return None
        cut = operations[attentions[0]]
        above = [o for i, o in enumerate(operations[start:], start) if i != attentions[0]]
        found = self.tape.backward([(self.output, seed[None])], above)
        if not found.only_of(cut.output, residual) or not (self.positions > 0).all():
            return None  # a path around the last layer; or no other row in which mixing would show
        d_output, d_residual = found.of(cut.output), found.of(residual)
        if d_output is None or d_residual is None:
            return None
        is_target = torch.zeros(residual.shape[:2], dtype=torch.bool, device=residual.device)
        is_target.scatter_(1, self.positions, True)
        if d_residual[0][~is_target].any() or d_output[0].transpose(1, 2)[~is_target].any():
            return None
        grads = cut.taped.vjp_at(d_output[0], self.positions, valid)
        seeds = [*zip(cut.taped.inputs, grads, strict=True), (residual, self._spread(d_residual[0], valid))]
        return seeds, attentions[0]

    def _at_head(self, seed: Tensor, valid: Tensor) -> tuple[list[tuple[Tensor, Tensor]], int]:
        """Gradients at the head's input: right for any causal model, a little dearer."""
        head_input, start = self.stages["head"]
        above = self.tape.backward([(self.output, seed[None])], self.tape.operations[start:])
        found = above.of(head_input) if self.tape.tracks(head_input) else None
        if found is None or not above.only_of(head_input):
            raise NotTapeable("a path around the head")
        offset = self.embeddings.shape[1] - head_input.shape[1]
        return [(head_input, self._spread(found[0], valid, offset))], start

    def _spread(self, gradient: Tensor, valid: Tensor, offset: int = 0) -> Tensor:
        """(batch, seq, hidden) -> (targets, batch, seq, hidden): each target keeps the row at its own position."""
        batch, targets = self.positions.shape
        spread = gradient.new_zeros(targets, *gradient.shape)
        slot, row = torch.arange(targets, device=gradient.device)[:, None], torch.arange(batch, device=gradient.device)
        at = (self.positions - offset).T  # (targets, batch)
        spread[slot, row, at] = gradient[row, at] * valid.T[..., None]
        return spread
