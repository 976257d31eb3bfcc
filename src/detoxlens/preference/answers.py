"""Answers of the base model itself to hater turns, each with its toxicity; what a killed run has drawn is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.common.seeding import derive_seed
from detoxlens.data.replies import reply_of
from detoxlens.jobs.batches import Batches
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import Scratch
from detoxlens.models.capabilities import examine
from detoxlens.models.end_tokens import end_token_ids
from detoxlens.models.generation import plan_batches, sample_batch
from detoxlens.params.generation import GenerationConfig
from detoxlens.scorers.reward import Toxicity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 64
"""Answers decoded together; the bytes do not depend on it where the model's do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer(token_ids=(5, 9, EOS), text="the cat", toxicity=0.02, seed=81)"""

    token_ids: tuple[int, ...]
    """What is learnt from: the end token included, if there is one; up to where the human's next turn begins."""
    text: str
    toxicity: float | None
    """P(toxic) by the reward model; None for an answer without any text."""
    seed: int
    """Draws this answer again, whatever is drawn beside it."""


def answer_seed(seed: int, split: str, prompt_ids: Sequence[int], sample_index: int) -> int:
    """Of one answer: it depends on the prompt, not on how many others there are."""
    return derive_seed(seed, "answers", split, *prompt_ids, sample_index)


def own_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    toxicity: Toxicity,
    scratch: Scratch,
    *,
    decoding: GenerationConfig,
    num_samples: int,
    split: str,
    title: str,
    seed: int,
) -> list[list[Answer]]:
    """`num_samples` answers to each prompt, in the order of the prompts.

    Args:
        model: the base model, without an adapter.
        tokenizer: the model's.
        prompts: token ids.
        toxicity: of a text.
        scratch: of the stage.
        decoding: how to sample; `stop` lists texts.
        num_samples: answers per prompt.
        split: of the prompts; names the log and the seeds.
        title: of the progress bar.
        seed: see `answer_seed`.
    """
    able = examine(model, pad_token_id=tokenizer.pad_token_id)
    able.warn_of_slow_sampling(type(model).__name__)
    rows = [(prompt, index) for prompt in prompts for index in range(num_samples)]
    seeds = [answer_seed(seed, split, prompt, index) for prompt, index in rows]
    ends = end_token_ids(model, tokenizer)
    batches = Batches(scratch, plan_batches([len(prompt) for prompt, _ in rows], BATCH_SIZE), name=f"answers-{split}")

    def sampled(batch: Sequence[int]) -> list[tuple[tuple[int, ...], str, float | None]]:
        found = sample_batch(
            model,
            [rows[i][0] for i in batch],
            config=decoding,
            seeds=[seeds[i] for i in batch],
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            capabilities=able,
        )
        replies = [reply_of(tokenizer, s.token_ids, s.finish_reason, stop=decoding.stop) for s in found]
        kept = [
            s.token_ids if reply.finish_reason == s.finish_reason else reply.token_ids
            for s, reply in zip(found, replies, strict=True)
        ]
        texts = [reply.text for reply in replies]
        return list(zip(kept, texts, toxicity(texts), strict=True))

    with progress(title, total=batches.num_rows, unit="answers", num_done=batches.num_done) as bar:
        done = batches.run(sampled, bar)
    answers = []
    for i, own_seed in enumerate(seeds):
        ids, text, toxic = done[i]
        answers.append(Answer(token_ids=tuple(ids), text=text, toxicity=toxic, seed=own_seed))
    return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]
