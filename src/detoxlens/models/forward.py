"""Ways to next-token logits of a causal language model, and what its config says of its size.

left padded    ids [[-1, -1,  5,  9],   mask [[0, 0, 1, 1],   positions [[0, 0, 0, 1],    rows end in one column
                    [ 4,  8,  2,  6]]         [1, 1, 1, 1]]              [0, 1, 2, 3]]
right padded   ids [[ 5,  9,  0,  0],   neither mask nor positions: what stands behind a token is not seen
                    [ 4,  8,  2,  6]]

Which of them are right for a model is found by `capabilities.examine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detoxlens.common.errors import UserError
from detoxlens.models.truncation import NO_TOKEN
from detoxlens.params.section import Autocast

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


def text_config(model: PreTrainedModel | PeftModel) -> PretrainedConfig:
    """The language model's own settings, which checkpoints that also read images keep one level down."""
    return model.config.get_text_config(decoder=True)


def context_length(model: PreTrainedModel | PeftModel) -> int | None:
    """Positions that the model was built for, in tokens; None if its config names no limit."""
    length = getattr(text_config(model), "max_position_embeddings", None)
    return length if length and length > 0 else None


def decoder_layers(model: nn.Module) -> nn.ModuleList | None:
    """The stack of decoder layers, first to last; None where none is recognised by its length."""
    num_layers = text_config(model).num_hidden_layers
    stacks = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers)
    return next(stacks, None)


def left_padded(sequences: Sequence[Sequence[int]], *, room: int = 0) -> Int[Tensor, "batch seq"]:
    """Sequences that end in one column, `NO_TOKEN` before them and in `room` further columns after it."""
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width + room), NO_TOKEN, dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[width - len(sequence) : width] = sequence
    return torch.from_numpy(ids)


def positions_of(mask: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """0, 1, 2, ... from each row's first token on; 0 in the padding before it."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def last_logits(
    model: PreTrainedModel | PeftModel, ids: Int[Tensor, "batch seq"], num: int, *, filler_id: int, keeps_logits: bool
) -> Float[Tensor, "batch num vocab"]:
    """Logits of the last `num` columns of left-padded rows, in one pass."""
    mask = (ids != NO_TOKEN).long()
    kept = {"logits_to_keep": num} if keeps_logits else {}
    logits = model(
        input_ids=ids.masked_fill(ids == NO_TOKEN, filler_id),
        attention_mask=mask,
        position_ids=positions_of(mask),
        use_cache=False,
        **kept,
    ).logits
    return logits if keeps_logits else logits[:, -num:]


def logits_at(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Sequence[int]],
    spans: Sequence[tuple[int, int]],
    *,
    head_selects: bool = True,
    autocast: Autocast = None,
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens hidden"] | None]:
    """Logits, and the head's input, at positions start <= t < end of each row, row by row: one right-padded pass.

    Behind a causal mask no token sees the padding, so no attention mask is needed.

    Args:
        model: a causal language model.
        rows: token ids.
        spans: (start, end) of each row.
        head_selects: the output layer is given these positions alone; without it there is no head's input to return.
        autocast: format of the matrix products; None is that of the weights.
    """
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    wanted = torch.zeros(ids.shape, dtype=torch.bool)
    for row, (start, end) in zip(wanted, spans, strict=True):
        row[start:end] = True
    wanted = wanted.to(ids.device)
    products = torch.autocast(model.device.type, getattr(torch, autocast)) if autocast else nullcontext()
    if not head_selects:
        with products:
            return model(input_ids=ids, use_cache=False).logits[wanted], None
    with products, head_sees_only(wanted, model.get_output_embeddings()) as seen:
        logits = model(input_ids=ids, use_cache=False).logits.squeeze(0)
    return logits, seen[0]


@contextmanager
def head_sees_only(positions: Bool[Tensor, "batch seq"], head: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the language-model head gets the hidden states of `positions` alone; they are also put into the list.

    A hook, so that the model's own forward still does what it does behind the head (scaling, soft-capping).
    """
    seen: list[Tensor] = []

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        chosen = args[0][positions]  # (tokens, hidden)
        seen.append(chosen)  # one per pass over the network
        return (chosen.unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        handle.remove()


def new_cache(model: PreTrainedModel | PeftModel) -> Any:
    """An empty key-value cache of the kind that the model takes: its own `new_cache` (several passes per token), or
    transformers'."""
    from transformers import DynamicCache

    make = getattr(model, "new_cache", None)
    return DynamicCache(config=model.config) if make is None else make()


class Decoder(Protocol):
    """Gives the logits that follow the first `end` columns of left-padded rows, for ever greater `end`."""

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor, end: int) -> Float[Tensor, "rows vocab"]: ...

    def keep(self, rows: Tensor) -> None:
        """Only these rows are asked for from now on."""


class CachedDecoder:
    """The prefix once, then a token at a time beside the cache."""

    def __init__(self, model: PreTrainedModel | PeftModel, filler_id: int):
        self.model, self.filler_id, self.cache, self.seen = model, filler_id, new_cache(model), 0

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor, end: int) -> Float[Tensor, "rows vocab"]:
        new = slice(self.seen, end)  # what the cache does not hold yet
        self.seen = end
        return self.model(
            input_ids=ids[:, new].masked_fill(mask[:, new] == 0, self.filler_id),
            attention_mask=mask[:, :end],
            position_ids=positions[:, new],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)


class UncachedDecoder:
    """The whole prefix for every token, right padded: slower, and right for every causal model."""

    def __init__(self, model: PreTrainedModel | PeftModel, *, head_selects: bool):
        self.model, self.head_selects = model, head_selects

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor, end: int) -> Float[Tensor, "rows vocab"]:
        rows = [row[kept].tolist() for row, kept in zip(ids[:, :end], mask[:, :end].bool(), strict=True)]
        spans = [(len(row) - 1, len(row)) for row in rows]
        return logits_at(self.model, rows, spans, head_selects=self.head_selects)[0]

    def keep(self, rows: Tensor) -> None:
        """There is nothing to forget."""


def check_finite(logits: Tensor) -> None:
    """Raises UserError if a row of logits holds no largest finite number."""
    if not logits.amax(-1).isfinite().all():
        raise UserError(
            "The model's logits are not finite numbers: its weights are damaged, or overflow in their dtype. Check the "
            "training that made them, or set the model's dtype to float32 (bfloat16 rather than float16)."
        )


@contextmanager
def evaluating(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Evaluation mode (no dropout) inside, the earlier mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
