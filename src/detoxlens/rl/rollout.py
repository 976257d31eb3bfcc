"""Rollouts: prompts in, sampled responses out, and the order in which prompts are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.common.records import FinishReason
from detoxlens.common.seeding import derive_seed, numpy_rng
from detoxlens.data.replies import reply_of
from detoxlens.models.capabilities import Capabilities
from detoxlens.models.end_tokens import end_token_ids
from detoxlens.models.generation import sample
from detoxlens.params.generation import GenerationConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Response(prompt_ids=(4, 8, 2), token_ids=(5, 9, EOS), finish_reason="eos", text="the cat")"""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """Generated tokens; an end token is the last of them iff finish_reason is `eos`."""
    finish_reason: FinishReason
    text: str
    """`reply_of` the tokens: all that a reward sees, and what a grader reads in the tables."""


def prompts_of_step(num_prompts: int, num_wanted: int, *, step: int, seed: int) -> list[int]:
    """Indices of the prompts of PPO step `step` (from 0): every prompt once per pass, each pass in its own order.

    A function of its arguments alone, so the data position needs no state beyond the step.
    """
    orders: dict[int, Sequence[int]] = {}
    indices = []
    for position in range(step * num_wanted, (step + 1) * num_wanted):
        epoch, offset = divmod(position, num_prompts)
        if epoch not in orders:
            orders[epoch] = numpy_rng(seed, "prompts", epoch).permutation(num_prompts).tolist()
        indices.append(orders[epoch][offset])
    return indices


def sample_responses(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    seed: int,
    names: tuple[str | int, ...],
    batch_size: int,
    capabilities: Capabilities | None = None,
    rows: Sequence[int] | None = None,
) -> list[Response]:
    """One response per prompt, that of row i drawn from (seed, *names, i).

    Args:
        model: the policy.
        tokenizer: its own.
        prompts: token ids.
        config: how to decode; where `stop` lists texts, a response ends at the first of them.
        seed: see above.
        names: see above.
        batch_size: rows decoded together.
        rows: which rows of a batch that is divided among processes the prompts are; None: all of them.
    """
    rows = range(len(prompts)) if rows is None else rows
    sampled = sample(
        model,
        prompts,
        config=config,
        seeds=[derive_seed(seed, *names, i) for i in rows],
        eos_token_id=end_token_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        batch_size=batch_size,
        capabilities=capabilities,
    )
    return [
        response_of(tokenizer, prompt, s.token_ids, s.finish_reason, config)
        for prompt, s in zip(prompts, sampled, strict=True)
    ]


def response_of(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    token_ids: Sequence[int],
    finish_reason: FinishReason,
    config: GenerationConfig,
) -> Response:
    """What was sampled as a response; one that a stop text ends before its first token keeps that token."""
    stop = () if config.stop == "next_turn" else config.stop
    reply = reply_of(tokenizer, token_ids, finish_reason, stop=stop)
    kept = token_ids if reply.finish_reason == finish_reason else token_ids[: max(1, len(reply.token_ids))]
    return Response(prompt_ids=tuple(prompt), token_ids=tuple(kept), finish_reason=reply.finish_reason, text=reply.text)
