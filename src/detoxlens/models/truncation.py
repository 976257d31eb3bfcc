"""From a model's logits to the distribution that is sampled, and one draw from it. Pure functions.

The same rules as transformers' logits processors, in the same order: n-gram blocking (Paulus et al. 2018, arXiv
1705.04304), minimum length, temperature, top-k (Fan et al. 2018, arXiv 1805.04833), top-p (Holtzman et al. 2020,
arXiv 1904.09751). A ban that would leave a row without any token is lifted for that row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detoxlens.models.end_tokens import EndTokens
from detoxlens.params.generation import GenerationConfig

NO_TOKEN = -1
"""Left padding of `prefix_ids`: equal to no token."""


def process_logits(
    logits: Float[Tensor, "rows vocab"],
    config: GenerationConfig,
    *,
    num_generated: int | Int[Tensor, " rows"],
    eos_token_id: EndTokens,
    prefix_ids: Int[Tensor, "rows width"] | None = None,
) -> Float[Tensor, "rows vocab"]:
    """Logits of the distribution that is sampled: what it excludes is -inf; its softmax gives the probabilities.

    Differentiable, so that a log-probability under the sampling distribution can be trained on.

    Args:
        logits: as the model gives them, float32.
        config: `temperature == 0` leaves the kept logits as they are.
        num_generated: tokens that each row has generated already.
        eos_token_id: one id or several, all banned while `num_generated < min_new_tokens`.
        prefix_ids: prompt and generated ids, left-padded with `NO_TOKEN`; needed for `no_repeat_ngram_size` only.
    """
    logits = _before_truncation(logits, config, num_generated, eos_token_id, prefix_ids)
    if (found := _largest(logits, config)) is not None:
        tokens, kept = found
        return torch.full_like(logits, -torch.inf).scatter(1, tokens, kept)
    return _truncated(logits, config)


def next_tokens(
    logits: Float[Tensor, "rows vocab"],
    uniforms: Float[Tensor, " rows"],
    config: GenerationConfig,
    *,
    num_generated: int,
    eos_token_id: EndTokens,
    prefix_ids: Int[Tensor, "rows width"] | None = None,
) -> Int[Tensor, " rows"]:
    """`draw(process_logits(logits, ...), uniforms)`, the most probable tokens at temperature 0.

    With top-k only the k largest logits of a row are summed up, not the vocabulary.
    """
    logits = _before_truncation(logits, config, num_generated, eos_token_id, prefix_ids)
    if (found := _largest(logits, config)) is not None:
        tokens, kept = found
        return tokens.gather(1, draw(kept, uniforms)[:, None]).squeeze(1)
    processed = _truncated(logits, config)
    return draw(processed, uniforms) if config.temperature else processed.argmax(-1)


def _before_truncation(
    logits: Tensor,
    config: GenerationConfig,
    num_generated: int | Tensor,
    eos_token_id: EndTokens,
    prefix_ids: Tensor | None,
) -> Tensor:
    """Bans and temperature."""
    if config.no_repeat_ngram_size:
        assert prefix_ids is not None, "no_repeat_ngram_size needs prefix_ids"
        logits = ban_repeated_ngrams(logits, prefix_ids, config.no_repeat_ngram_size)
    if config.min_new_tokens and not (isinstance(num_generated, int) and num_generated >= config.min_new_tokens):
        logits = ban_early_eos(logits, num_generated, config.min_new_tokens, eos_token_id)
    return logits / config.temperature if config.temperature not in (0, 1) else logits


def _largest(logits: Tensor, config: GenerationConfig) -> tuple[Tensor, Tensor] | None:
    """(rows, k): what top-k keeps, along the vocabulary, and its logits after top-p; the vocabulary is not sorted.

    None where there is no top-k, or where it keeps more than k: all that equal the k-th.
    """
    k = config.top_k
    if not config.temperature or not 0 < k < logits.shape[1]:
        return None
    largest, tokens = logits.topk(k + 1)  # descending
    if (largest[:, k - 1] == largest[:, k]).any():
        return None
    tokens, order = tokens[:, :k].sort(1)  # a uniform picks along the vocabulary, not by rank
    kept = largest[:, :k].gather(1, order)
    return tokens, keep_top_p(kept, config.top_p) if config.top_p < 1 else kept


def _truncated(logits: Tensor, config: GenerationConfig) -> Tensor:
    """After top-k and top-p, over the whole vocabulary."""
    if config.top_k and config.temperature:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1 and config.temperature:
        logits = keep_top_p(logits, config.top_p)
    return logits


def ban_repeated_ngrams(
    logits: Float[Tensor, "rows vocab"], prefix_ids: Int[Tensor, "rows width"], size: int
) -> Float[Tensor, "rows vocab"]:
    """-inf for every token that would complete an n-gram that the prefix holds already.

    size 2, prefix [5, 9, 7, 5]: after the first 5 came 9, so 9 is banned now.
    """
    width = prefix_ids.shape[1]
    if width < size:
        return logits
    windows = prefix_ids.unfold(1, size, 1)  # (rows, width - size + 1, size)
    begun = prefix_ids[:, width - size + 1 :]  # (rows, size - 1)
    repeats = (windows[..., :-1] == begun.unsqueeze(1)).all(-1) & (windows[..., -1] != NO_TOKEN)
    spare = logits.shape[1]  # a column beyond the vocabulary takes the windows that ban nothing
    banned = torch.zeros(logits.shape[0], spare + 1, dtype=torch.bool, device=logits.device)
    banned.scatter_(1, windows[..., -1].masked_fill(~repeats, spare), True)
    return _ban(logits, banned[:, :spare])


def ban_early_eos(
    logits: Float[Tensor, "rows vocab"],
    num_generated: int | Int[Tensor, " rows"],
    min_new_tokens: int,
    eos_token_id: EndTokens,
) -> Float[Tensor, "rows vocab"]:
    """-inf for every end token in rows with fewer than `min_new_tokens` tokens."""
    early = torch.as_tensor(num_generated, device=logits.device).expand(logits.shape[0]) < min_new_tokens
    ends = torch.as_tensor(eos_token_id, device=logits.device)
    is_eos = torch.isin(torch.arange(logits.shape[1], device=logits.device), ends)
    return _ban(logits, early[:, None] & is_eos)


def keep_top_k(logits: Float[Tensor, "rows vocab"], k: int) -> Float[Tensor, "rows vocab"]:
    """-inf for all but the k largest logits (and what equals the k-th)."""
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Float[Tensor, "rows vocab"], p: float) -> Float[Tensor, "rows vocab"]:
    """-inf for all but the fewest most probable tokens whose probabilities add up to `p`; at least one stays.

    Of equal ones at the edge, which bfloat16 has many of, the last in the vocabulary stay, whatever the other rows are.
    """
    ascending, order = logits.detach().sort(dim=-1, stable=True)
    drop = ascending.softmax(-1).cumsum(-1) <= 1 - p
    drop[..., -1] = False
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)


def draw(logits: Float[Tensor, "rows vocab"], uniforms: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The token at which the cumulative distribution of softmax(logits) first exceeds each uniform of [0, 1).

    probabilities [.2, .5, .3], cumulative [.2, .7, 1]: .1 -> 0, .2 -> 1, .69 -> 1, .95 -> 2. Never an excluded token.
    """
    cumulative = logits.to(uniforms.dtype).softmax(-1).cumsum(-1)
    point = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def _ban(logits: Tensor, banned: Tensor) -> Tensor:
    """-inf where banned, except in rows that would have nothing left: there the ban is lifted."""
    nothing_left = (banned | logits.isneginf()).all(-1, keepdim=True)
    return logits.masked_fill(banned & ~nothing_left, -torch.inf)
