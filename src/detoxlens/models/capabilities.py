"""Capabilities of a causal language model's forward: found once, by trying it on two short rows.

Hugging Face's classes share one signature, not one contract: some keep no key-value cache, some let padding on the left
be seen, some swallow `logits_to_keep`. What they say of themselves does not tell; what they compute does.

    long    [a b c d e f g h]      alone: the reference
    short   [a b c]                alone: the reference
    ahead   [a b c x x x x x]      must be the same with y for x, or the model reads what comes after: refused
    right   [a b c _ _ _ _ _]      must be `short`, or rows depend on their company: refused
    left    [_ _ _ _ _ a b c]      is it `short`, under attention mask and position ids?
    kept    logits_to_keep=3       are they the last three of `left`?
    cached  `left` but for its end, then token by token: `long` and `short`? still, after a row has left the batch?

What fails costs speed: prompts of one length share a batch, or every token takes a pass over its whole prefix.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detoxlens.common.errors import UserError
from detoxlens.models.forward import (
    CachedDecoder,
    check_finite,
    context_length,
    evaluating,
    last_logits,
    left_padded,
    logits_at,
    positions_of,
    text_config,
)
from detoxlens.models.hub import first_line
from detoxlens.models.truncation import NO_TOKEN

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Root mean square difference, as a share of the logits' spread over positions, that rounding may make."""

    ahead: float
    """Between two continuations of one text: 0 for every causal architecture that is tested, .03 for BERT."""
    behind: float
    """Between a text alone and one with padding behind it."""
    padded: float
    """Of left padding and of positions chosen; where these fail, by .08 to 1.3."""
    cached: float
    """Of a token beside a cache, on which a product is of a single row; where the cache fails, by .9 to 1.4."""


FLOAT_32 = Tolerance(ahead=1e-3, behind=5e-3, padded=1e-3, cached=1e-3)
BITS_16 = Tolerance(ahead=0.01, behind=0.25, padded=0.05, cached=0.2)
"""SmolLM2 135M in bfloat16 on a CPU: 0, 0, 0 and .044."""
BITS_8 = Tolerance(ahead=0.25, behind=0.5, padded=0.25, cached=0.5)
"""LLM.int8 lets rows disturb one another (`quant.py`)."""
NUM_LONG, NUM_SHORT, NUM_STEPS = 12, 7, 4
LONGEST_WINDOW = 512
"""Attention windows up to this length are tried from both sides; a longer one would cost more than it tells."""
WINDOWS = ("sliding_window", "attention_window_size", "attention_chunk_size", "window_size")
REFUSALS = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    AssertionError,
)
"""What other people's forwards raise on what they do not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What holds of a model, e.g. of GPT-NeoX, Falcon and Llama:

    Capabilities(context_length=2048, filler_id=0, cached=True, rows_leave=True, left_padded=True, keeps_logits=True,
                 head_selects=True)
    """

    context_length: int | None
    """Positions that the model was built for, in tokens; None if its config names no limit."""
    num_tokens: int
    """Rows of the embedding; ids are below it."""
    filler_id: int
    """What stands in padding: the tokenizer's padding token, or 0 where that has no row in the embedding."""
    cached: bool
    """One token and the cache give the logits of the whole prefix."""
    rows_leave: bool
    """Rows can leave the cache before the others are finished."""
    left_padded: bool
    """Attention mask and position ids hide what stands left of a row."""
    keeps_logits: bool
    """`logits_to_keep` gives the logits of the last positions, and no others."""
    head_selects: bool
    """The output layer can be given some positions alone; PPO needs it, and likelihoods take less memory."""

    def warn_of_slow_sampling(self, name: str) -> None:
        """Says in the log what makes sampling slower than it could be; the tokens are the same."""
        if not self.cached:
            log.warning("%s has no cache to rely on: each new token takes a pass over its whole prefix", name)
        elif not self.left_padded:
            log.warning("%s is changed by padding on the left: only prompts of one length are decoded together", name)
        if self.cached and not self.rows_leave:
            log.warning("%s keeps finished completions in the batch: no row can leave its cache", name)


def examine(model: PreTrainedModel | PeftModel, *, pad_token_id: int | None, name: str | None = None) -> Capabilities:
    """Tries the model as it is loaded; draws no random number and leaves nothing changed.

    Args:
        model: a causal language model, with or without an adapter.
        pad_token_id: the tokenizer's padding token.
        name: how messages call the model; None is its class.

    Raises:
        UserError: the model cannot be run on token ids alone, gives logits that are not finite, or reads the tokens
            behind a position.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.no_grad(), evaluating(model):
        return Trial(model, pad_token_id, name or type(inner).__name__).capabilities()


class Trial:
    """The two rows, what a plain pass makes of each alone, and what other ways do."""

    def __init__(self, model: PreTrainedModel | PeftModel, pad_token_id: int | None, name: str):
        self.model, self.name, self.context = model, name, context_length(model)
        self.num_tokens = model.get_input_embeddings().weight.shape[0]
        self.filler = pad_token_id if pad_token_id is not None and 0 <= pad_token_id < self.num_tokens else 0
        window = _short_window(model)
        num_long = min(NUM_LONG + window, self.context or NUM_LONG + window)
        num_short = max(1, num_long - (NUM_LONG - NUM_SHORT))
        ids = [(11 + 17 * i) % self.num_tokens for i in range(num_long + num_short)]
        self.long, self.short = ids[:num_long], ids[num_long:]
        self.tolerance = _tolerance(model)

        try:
            self.of_long, self.of_short = self.alone(self.long), self.alone(self.short)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as e:
            remedy = "name a causal language model that reads text"
            if hasattr(model, "peft_config"):
                remedy += ", or leave layers that give no single tensor (a router, say) out of lora.target_modules"
            raise UserError(
                f"{self.name} cannot be run on token ids alone ({type(e).__name__}: {first_line(e)}); {remedy}."
            ) from e
        check_finite(self.of_long)
        self.spread = (self.of_long - self.of_long.mean(0)).square().mean().sqrt()

    def capabilities(self) -> Capabilities:
        limits = self.tolerance
        if not self.works(self.ahead, limits.ahead):
            raise UserError(
                f"{self.name} reads the tokens after a position, so that it has no next-token probabilities; name a "
                "causal language model (for some, is_decoder: true in its config.json)."
            )
        if not self.works(self.right, limits.behind):
            raise UserError(
                f"{self.name} is changed by the padding behind a text, so that its probabilities depend on the texts "
                "beside it; name another model, or another revision of its code."
            )
        left = self.works(self.left, limits.padded)
        rows = (self.long, self.short if left else self.long)
        rows_leave = self.works(lambda: self.cached(rows, leaving=True), limits.cached)
        return Capabilities(
            context_length=self.context,
            num_tokens=self.num_tokens,
            filler_id=self.filler,
            cached=rows_leave or self.works(lambda: self.cached(rows, leaving=False), limits.cached),
            rows_leave=rows_leave,
            left_padded=left,
            keeps_logits=left and self.works(self.kept, limits.padded),
            head_selects=self.works(self.selected, limits.padded),
        )

    def alone(self, row: Sequence[int]) -> Tensor:
        """(tokens, vocab) of a plain pass over one row."""
        ids = torch.tensor([row], device=self.model.device)
        return self.model(input_ids=ids, use_cache=False).logits[0].float()

    def works(self, way: Callable[[], Iterator[tuple[Tensor, Tensor]]], tolerance: float) -> bool:
        """Are the pairs (found, expected) that `way` gives the same, and does nothing fail before the last?"""
        limit = tolerance * self.spread
        try:
            return all(
                found.shape == expected.shape and bool((found.float() - expected).square().mean().sqrt() <= limit)
                for found, expected in way()
            )
        except torch.OutOfMemoryError:
            raise
        except REFUSALS:
            return False

    def ahead(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The short row before two continuations: the same kernels on the same shapes, so that little is rounding."""
        num_behind = len(self.long) - len(self.short)
        spans = [(0, 0), (0, len(self.short))]
        one, other = (
            logits_at(self.model, [self.long, [*self.short, *behind]], spans, head_selects=False)[0].float()
            for behind in ([0] * num_behind, self.long[:num_behind])
        )
        yield one, other

    def right(self) -> Iterator[tuple[Tensor, Tensor]]:
        spans = [(0, 0), (0, len(self.short))]
        yield logits_at(self.model, [self.long, self.short], spans, head_selects=False)[0], self.of_short

    def selected(self) -> Iterator[tuple[Tensor, Tensor]]:
        spans = [(len(self.long) - 1, len(self.long)), (len(self.short) // 2, len(self.short))]
        expected = torch.cat([self.of_long[-1:], self.of_short[len(self.short) // 2 :]])
        yield logits_at(self.model, [self.long, self.short], spans)[0], expected

    def left(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self._last(len(self.short), keeps_logits=False), self.of_short

    def kept(self) -> Iterator[tuple[Tensor, Tensor]]:
        num = min(3, len(self.short))
        yield self._last(num, keeps_logits=True), self.of_short[-num:]

    def _last(self, num: int, *, keeps_logits: bool) -> Tensor:
        ids = left_padded([self.long, self.short]).to(self.model.device)
        return last_logits(self.model, ids, num, filler_id=self.filler, keeps_logits=keeps_logits)[1]

    def cached(self, rows: Sequence[Sequence[int]], *, leaving: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The last tokens of both rows one at a time; with `leaving` the first row is gone after the first."""
        ids = left_padded(rows).to(self.model.device)
        mask = (ids != NO_TOKEN).long()
        positions, width = positions_of(mask), ids.shape[1]
        decoder = CachedDecoder(self.model, self.filler)
        references = [self.of_long, self.of_short if rows[1] is self.short else self.of_long]
        for step in reversed(range(min(NUM_STEPS, len(self.short)))):
            logits = decoder.logits(ids, mask, positions, width - step)
            for row, reference in zip(logits, references, strict=True):
                yield row, reference[len(reference) - 1 - step]
            if leaving and len(references) > 1:
                last = torch.tensor([1], device=ids.device)
                decoder.keep(last)
                ids, mask, positions, references = ids[last], mask[last], positions[last], references[1:]


def _short_window(model: PreTrainedModel | PeftModel) -> int:
    """Length of the longest attention window that is short enough to be crossed in a trial; 0 if there is none."""
    found = (getattr(text_config(model), key, None) for key in WINDOWS)
    return max((w for w in found if isinstance(w, int) and 0 < w <= LONGEST_WINDOW), default=0)


def _tolerance(model: PreTrainedModel | PeftModel) -> Tolerance:
    if getattr(model, "is_loaded_in_8bit", False):
        return BITS_8
    return FLOAT_32 if model.dtype in (torch.float32, torch.float64) else BITS_16
