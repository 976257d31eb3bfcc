"""Sampling from causal language models: batched, cached, and the same whatever the batch.

A row's tokens depend on the model, its prompt and its seed alone: it draws one uniform number per token from its own
generator, before decoding starts, and each number picks a token by the inverse of the cumulative distribution.

    prompts left-padded to one width; n-grams never reach into the padding
        ids   [[-1, -1,  5,  9,  7, ...],        mask  [[0, 0, 1, 1, 1, ...],
               [ 4,  8,  2,  6,  3, ...]]               [1, 1, 1, 1, 1, ...]]
                width = 4 ----^   ^---- generated
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import Capabilities, examine
from detoxlens.models.end_tokens import EndTokens
from detoxlens.models.forward import (
    CachedDecoder,
    Decoder,
    UncachedDecoder,
    check_finite,
    evaluating,
    left_padded,
    positions_of,
    text_config,
)
from detoxlens.models.truncation import NO_TOKEN, next_tokens
from detoxlens.params.generation import GenerationConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

COMPACT_BELOW = 0.75
"""Finished rows leave the batch once the share of unfinished rows is below this."""
CPU_BATCH_SIZE = 64
"""`batch_size: auto` on CPU, where a number taken from free memory would make the bytes depend on the neighbours."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one row generated: `Sampled(token_ids=(5, 9, EOS), finish_reason="eos")`."""

    token_ids: tuple[int, ...]
    """Generated ids; the last is an end token iff `finish_reason` is `eos`."""
    finish_reason: Literal["eos", "length"]


def sample(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    *,
    config: GenerationConfig,
    seeds: Sequence[int],
    eos_token_id: EndTokens,
    pad_token_id: int,
    batch_size: int,
    capabilities: Capabilities | None = None,
    on_batch: Callable[[list[tuple[int, Sampled]]], None] | None = None,
) -> list[Sampled]:
    """One completion per prompt, in the order of the prompts.

    Args:
        model: a causal language model; it is put into evaluation mode meanwhile.
        prompts: token ids, at least one per prompt.
        config: how to decode; `num_samples` and `batch_size` are the caller's business.
        seeds: one per prompt; equal seeds on equal prompts give equal completions.
        eos_token_id: what ends a completion, one id or several.
        pad_token_id: fills what the attention mask hides.
        batch_size: rows decoded together (similar lengths share a batch).
        capabilities: what `examine` found of the model; None examines it now.
        on_batch: called with every finished batch: index into `prompts`, and its sample.

    Raises:
        UserError: an empty prompt, a prompt that does not fit the context, or logits that are not numbers.
    """
    able = capabilities or examine(model, pad_token_id=pad_token_id)
    _check_prompts(able, prompts, config.max_new_tokens)
    samples: dict[int, Sampled] = {}
    for rows in plan_batches([len(p) for p in prompts], batch_size):
        done = sample_batch(
            model,
            [prompts[i] for i in rows],
            config=config,
            seeds=[seeds[i] for i in rows],
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            capabilities=able,
        )
        samples.update(zip(rows, done, strict=True))
        if on_batch is not None:
            on_batch(list(zip(rows, done, strict=True)))
    return [samples[i] for i in range(len(prompts))]


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first: what does not fit in memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@torch.no_grad()
def sample_batch(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    *,
    config: GenerationConfig,
    seeds: Sequence[int],
    eos_token_id: EndTokens,
    pad_token_id: int,
    capabilities: Capabilities | None = None,
) -> list[Sampled]:
    """`sample` for one batch."""
    able = capabilities or examine(model, pad_token_id=pad_token_id)
    _check_prompts(able, prompts, config.max_new_tokens)
    samples: list[Sampled | None] = [None] * len(prompts)
    with evaluating(model):
        for rows in _decoded_together(prompts, able):
            decoder = (
                CachedDecoder(model, able.filler_id)
                if able.cached
                else UncachedDecoder(model, head_selects=able.head_selects)
            )
            found = _decode(
                decoder,
                [prompts[i] for i in rows],
                config=config,
                uniforms=_uniforms([seeds[i] for i in rows], config.max_new_tokens, model.device),
                eos_token_id=eos_token_id,
                rows_leave=able.rows_leave or not able.cached,
            )
            for i, sampled in zip(rows, found, strict=True):
                samples[i] = sampled
    return samples


def _decoded_together(prompts: Sequence[Sequence[int]], able: Capabilities) -> list[list[int]]:
    """Indices of prompts in batches: all, or those of one length where a cached row must not be padded."""
    if able.left_padded or not able.cached:
        return [list(range(len(prompts)))]
    by_length: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(i)
    return list(by_length.values())


def _decode(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    config: GenerationConfig,
    uniforms: Tensor,
    eos_token_id: EndTokens,
    rows_leave: bool,
) -> list[Sampled]:
    """One completion per prompt; `uniforms` is (batch, max_new_tokens)."""
    width = max(map(len, prompts))
    ids = left_padded(prompts, room=config.max_new_tokens).to(uniforms.device)  # (batch, width + max_new)
    mask = (ids != NO_TOKEN).long()
    mask[:, width:] = 1
    positions = positions_of(mask)
    ends = {eos_token_id} if isinstance(eos_token_id, int) else set(eos_token_id)
    samples: list[Sampled | None] = [None] * len(prompts)
    rows = list(range(len(prompts)))  # row of the tensors -> index into prompts
    for step in range(config.max_new_tokens):
        logits = decoder.logits(ids, mask, positions, width + step)  # (rows, vocab)
        check_finite(logits)
        tokens = next_tokens(
            logits.float(),
            uniforms[:, step],
            config,
            num_generated=step,
            eos_token_id=eos_token_id,
            prefix_ids=ids[:, : width + step],
        )
        ids[:, width + step] = tokens
        last = step + 1 == config.max_new_tokens
        for row, token in enumerate(tokens.tolist()):
            if samples[rows[row]] is None and (token in ends or last):
                generated = tuple(ids[row, width : width + step + 1].tolist())
                samples[rows[row]] = Sampled(generated, "eos" if token in ends else "length")
        live = [row for row, index in enumerate(rows) if samples[index] is None]
        if not live:
            break
        if rows_leave and len(live) < COMPACT_BELOW * len(rows):
            kept = torch.tensor(live, device=ids.device)
            ids, mask, positions, uniforms = ids[kept], mask[kept], positions[kept], uniforms[kept]
            decoder.keep(kept)
            rows = [rows[row] for row in live]
    return samples


def auto_batch_size(model: PreTrainedModel | PeftModel, *, longest_prompt: int, max_new_tokens: int) -> int:
    """Rows that fit: `CPU_BATCH_SIZE` on CPU; on CUDA what the cache and logits of a row leave room for, a power of 2.

    Half of the free memory is taken, for the activations of the prompt and the cache's growth by copying.
    """
    if model.device.type != "cuda":
        return CPU_BATCH_SIZE
    config = text_config(model)
    width = config.hidden_size
    if isinstance(heads := getattr(config, "num_attention_heads", None), int):  # an upper bound where heads share keys
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    seq = longest_prompt + max_new_tokens
    cache_bytes = 2 * config.num_hidden_layers * width * seq * model.dtype.itemsize
    logits_bytes = 8 * 4 * config.vocab_size  # float32 copies made by process_logits and draw
    free_bytes, _ = torch.cuda.mem_get_info(model.device)
    rows = int(free_bytes / 2 / (2 * cache_bytes + logits_bytes))
    return 2 ** min(max(rows, 1).bit_length() - 1, 9)


def _uniforms(seeds: Sequence[int], max_new_tokens: int, device: torch.device) -> Tensor:
    """(batch, max_new_tokens) numbers in [0, 1), each row from its own generator; float64 where the device has it."""
    rows = np.stack([np.random.default_rng(seed).random(max_new_tokens) for seed in seeds])
    return torch.from_numpy(rows.astype(np.float32) if device.type == "mps" else rows).to(device)


def _check_prompts(able: Capabilities, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    context = able.context_length
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"Prompt {index} has no tokens; a prompt needs at least one, e.g. the template's.")
        if context is not None and len(prompt) + max_new_tokens > context:
            raise UserError(
                f"Prompt {index} has {len(prompt)} tokens; with generation.max_new_tokens={max_new_tokens} that "
                f"exceeds the model's context of {context} tokens. Shorten or drop the prompt, or lower max_new_tokens."
            )
        if not 0 <= min(prompt) <= max(prompt) < able.num_tokens:
            wrong = next(i for i in prompt if not 0 <= i < able.num_tokens)
            raise UserError(
                f"Prompt {index} has the token {wrong}, and the model knows 0..{able.num_tokens - 1}: its tokenizer "
                "has tokens without a row in the embedding. Use the tokenizer that the model was trained with, or "
                "remove the added tokens from it."
            )
