"""Likelihood of given completions under a model: summed negative log-likelihood in nats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from detoxlens.models.capabilities import Capabilities, examine
from detoxlens.models.forward import evaluating, last_logits, left_padded, logits_at
from detoxlens.models.generation import plan_batches

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def completion_nll(
    model: PreTrainedModel | PeftModel,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    batch_size: int,
    pad_token_id: int,
    capabilities: Capabilities | None = None,
) -> list[float]:
    """-log p(completion | prompt) of each pair, summed over its tokens, in nats >= 0; 0 for an empty completion.

    The model's own distribution at temperature 1, without truncation.

    Args:
        model: a causal language model; it is put into evaluation mode meanwhile.
        prompt_ids: at least one token each.
        completion_ids: what is scored, one per prompt, with or without its end-of-sequence token.
        batch_size: pairs in one forward pass (similar lengths share one).
        pad_token_id: fills what the attention mask hides.
        capabilities: what `examine` found of the model; None examines it now.
    """
    able = capabilities or examine(model, pad_token_id=pad_token_id)
    nll_nats = [0.0] * len(prompt_ids)
    lengths = [len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True)]
    for batch in plan_batches(lengths, batch_size):
        rows = [i for i in batch if completion_ids[i]]
        if rows:
            scored = _batch_nll(model, [prompt_ids[i] for i in rows], [completion_ids[i] for i in rows], able)
            for i, value in zip(rows, scored, strict=True):
                nll_nats[i] = value
    return nll_nats


@torch.no_grad()
def _batch_nll(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    able: Capabilities,
) -> list[float]:
    sequences = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    with evaluating(model):
        if not able.left_padded:
            return _nll_right_padded(model, sequences, completions, able)
        ids = left_padded(sequences).to(model.device)  # (batch, seq)
        longest = max(map(len, completions))
        logits = last_logits(model, ids, longest + 1, filler_id=able.filler_id, keeps_logits=able.keeps_logits)[
            :, :-1
        ]  # (batch, longest, vocab): position t predicts token t + 1
    targets = ids[:, -longest:]
    log_probs = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    lengths = torch.tensor([len(c) for c in completions], device=ids.device)
    is_completion = torch.arange(longest, 0, -1, device=ids.device) <= lengths[:, None]  # the last `length` columns
    return (-(log_probs.double() * is_completion).sum(-1)).tolist()


def _nll_right_padded(
    model: PreTrainedModel | PeftModel,
    sequences: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    able: Capabilities,
) -> list[float]:
    spans = [(len(s) - len(c) - 1, len(s) - 1) for s, c in zip(sequences, completions, strict=True)]
    logits, _ = logits_at(model, sequences, spans, head_selects=able.head_selects)  # (tokens, vocab)
    targets = torch.tensor([token for c in completions for token in c], device=logits.device)
    log_probs = logits.float().log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    return [-part.double().sum().item() for part in log_probs.split([len(c) for c in completions])]
