"""What the policy says: prompts in, sampled responses out, and the order in which prompts are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from detoxlens.common.seeding import derive_seed, numpy_rng
from detoxlens.models.capabilities import Capabilities
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
    """Generated tokens; the end-of-sequence token is the last of them iff finish_reason is `eos`."""
    finish_reason: Literal["eos", "length"]
    text: str
    """Decoded without special tokens: all that a reward sees."""


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

    `rows` says which rows of a batch that is divided among processes the prompts are; None: all of them.
    """
    rows = range(len(prompts)) if rows is None else rows
    sampled = sample(
        model,
        prompts,
        config=config,
        seeds=[derive_seed(seed, *names, i) for i in rows],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        batch_size=batch_size,
        capabilities=capabilities,
    )
    texts = tokenizer.batch_decode([s.token_ids for s in sampled], skip_special_tokens=True)
    return [
        Response(prompt_ids=tuple(prompt), token_ids=s.token_ids, finish_reason=s.finish_reason, text=text)
        for prompt, s, text in zip(prompts, sampled, texts, strict=True)
    ]
