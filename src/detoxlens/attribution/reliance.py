"""Reliance of a model's next token on the user's text, by its predictions alone: no gradient, no attribution.

    prompt     <human>: {user's text} <bot>:      template     <human>: <bot>:      (the user's tokens deleted)

    KL_t   = sum_v p(v | prompt, y<t) log2 p(v | prompt, y<t) / p(v | template, y<t)    >= 0 bits
    gain_t = log2 p(y_t | prompt, y<t) / p(y_t | template, y<t)

KL_t is the mean of gain_t over tokens that the model might have sampled at t; the mean of the gain over samples is the
information that the text gives about the answer. Fernandes et al. 2021 (arXiv 2105.03482), eq. 3, for the gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_LOGITS = 2**25
"""Logits of one pass, 128 MiB in float32; a single sequence is always allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliance:
    """Of one completion: Reliance(kl_bits=(3.1, .2), gain_bits=(4.0, -.1))."""

    kl_bits: tuple[float, ...]
    """Per generated token, >= 0."""
    gain_bits: tuple[float, ...]
    """Per generated token; below 0 where the user's text made the token less likely."""


def prompt_reliance(
    model: nn.Module,
    *,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    is_template: Sequence[Sequence[bool]],
) -> list[Reliance | None]:
    """Two forwards per completion, one behind the whole prompt and one behind its template.

    Args:
        model: a causal language model.
        prompt_ids: of each completion.
        completion_ids: of each; none may be empty.
        is_template: per prompt token, whether it comes from the template.

    Returns:
        None where the prompt has no template token: with nothing before it the first token has no prediction.
    """
    found: list[Reliance | None] = [None] * len(prompt_ids)
    templates = [[i for i, t in zip(*pair, strict=True) if t] for pair in zip(prompt_ids, is_template, strict=True)]
    usable = sorted((i for i, template in enumerate(templates) if template), key=lambda i: len(completion_ids[i]))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    for rows in _passes(usable, [len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True)], vocabulary):
        completions = [completion_ids[i] for i in rows]
        whole = _log_probs(model, [prompt_ids[i] for i in rows], completions)
        alone = _log_probs(model, [templates[i] for i in rows], completions)
        for i, p, q, completion in zip(rows, whole, alone, completions, strict=True):
            chosen = torch.tensor(completion, device=p.device)[:, None]
            gain = (p.gather(1, chosen) - q.gather(1, chosen)).squeeze(1) / math.log(2)
            found[i] = Reliance(kl_bits=tuple(kl_bits(p, q).tolist()), gain_bits=tuple(gain.tolist()))
    return found


def kl_bits(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row, in bits, >= 0; a token that p excludes adds nothing.

    Args:
        log_p: (steps, vocab) natural logarithms.
        log_q: as `log_p`.
    """
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), 0.0)
    return terms.sum(-1).clamp(min=0.0) / math.log(2)


def _log_probs(
    model: nn.Module, contexts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[Tensor]:
    """log p(. | context, y<t) for each generated token: one (steps, vocab) per sequence, in float32 or longer."""
    rows = [[*context, *completion[:-1]] for context, completion in zip(contexts, completions, strict=True)]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for r, row in enumerate(rows):
        ids[r, : len(row)] = torch.tensor(row)  # padded on the right: unseen
    with torch.no_grad():
        logits = model(input_ids=ids.to(next(model.parameters()).device), use_cache=False).logits
    found = []
    for r, (context, completion) in enumerate(zip(contexts, completions, strict=True)):
        part = logits[r, len(context) - 1 : len(context) - 1 + len(completion)]
        found.append(part.to(torch.promote_types(part.dtype, torch.float32)).log_softmax(-1))
    return found


def _passes(order: Sequence[int], lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Consecutive indices whose logits fit in one pass."""
    passes: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if passes and (len(passes[-1]) + 1) * longest * vocabulary <= MAX_LOGITS:
            passes[-1].append(i)
        else:
            passes.append([i])
            longest = lengths[i]
    return passes
