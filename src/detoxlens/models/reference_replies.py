"""How a variant takes given replies to prompts: bits of each reply, and how far its predictions are from base's.

    bits    - sum_t log2 v(y_t | prompt, y_<t)                                        v: the variant, b: base
    KL      sum_t sum_w v(w | ...) log2 (v(w | ...) / b(w | ...))    >= 0, on the reply's prefixes, as PPO's penalty

Both are sums over the reply's tokens, under the models' own distributions at temperature 1. Where the variant's prompt
has more in it than base's (a system message), each reads its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from detoxlens.models.forward import evaluating, logits_at
from detoxlens.models.generation import plan_batches

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@torch.no_grad()
def reply_bits(
    variant: PreTrainedModel | PeftModel,
    base: PreTrainedModel | PeftModel,
    prompt_ids: Sequence[Sequence[int]],
    base_prompt_ids: Sequence[Sequence[int]],
    reply_ids: Sequence[Sequence[int]],
    *,
    batch_size: int,
    heads_select: tuple[bool, bool] = (False, False),
) -> list[tuple[float, float]]:
    """(bits, KL in bits) of each reply.

    Args:
        variant: a causal language model; put into evaluation mode meanwhile.
        base: what it is compared with; it may be the same.
        prompt_ids: what the variant is given, at least one token each.
        base_prompt_ids: what base is given.
        reply_ids: at least one token each.
        batch_size: replies in one forward pass.
        heads_select: of the variant and of base: `Capabilities.head_selects`.
    """
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(reply_ids)
    for batch in plan_batches([len(p) + len(r) for p, r in zip(prompt_ids, reply_ids, strict=True)], batch_size):
        replies = [reply_ids[i] for i in batch]
        log_probs = []
        for model, prompts, selects in (
            (variant, prompt_ids, heads_select[0]),
            (base, base_prompt_ids, heads_select[1]),
        ):
            rows = [[*prompts[i], *reply_ids[i]] for i in batch]
            spans = [(len(row) - len(reply) - 1, len(row) - 1) for row, reply in zip(rows, replies, strict=True)]
            with evaluating(model):
                logits, _ = logits_at(model, rows, spans, head_selects=selects)
            log_probs.append(logits.double().log_softmax(-1))  # (tokens, vocab)
        ours, theirs = log_probs
        targets = torch.tensor([token for reply in replies for token in reply], device=ours.device)
        nll = -ours.gather(-1, targets[:, None]).squeeze(-1)
        kl = (ours.exp() * (ours - theirs)).sum(-1)
        sizes = [len(reply) for reply in replies]
        for i, n, k in zip(batch, nll.split(sizes), kl.split(sizes), strict=True):
            found[i] = (n.sum().item() / math.log(2), max(0.0, k.sum().item() / math.log(2)))
    return found
