"""The placebo of counter-narrative fine-tuning: the same turns, answered by the base model itself.

Each example gets as many tokens with a loss as the written one has. The base model answers the dialogue's human turns
one after the other, its own earlier answers before it, then those of other dialogues until the count is reached; there
the loss ends, in the middle of an answer if need be:

    written   <human> Zorgons are dumb <bot> That is unfair <eos>                              4 tokens with a loss
    placebo   <human> Zorgons are dumb <bot> Yes <eos> <human> Jugglers ruin <bot> I hear      2 + 2

Answers are drawn from softmax(logits), without temperature, top-k or top-p, and where an example ends depends on what
came before alone: under the base model the expected gradient of the loss is zero. What such training changes is due to
training, not to what was taught.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.common.records import Dialogue
from detoxlens.common.seeding import derive_seed
from detoxlens.data.templates import Template, encode_prompt
from detoxlens.jobs.batches import Batches
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import Scratch
from detoxlens.models.capabilities import examine
from detoxlens.models.generation import plan_batches, sample_batch
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.sft import SftConfig
from detoxlens.sft.train import IGNORED, Example, chats_of, encode_example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 64
log = logging.getLogger(__name__)

Answer = Callable[[Sequence[Sequence[int]], Sequence[int], int], list[list[int]]]
"""(prompts, most new tokens of each, number of the round) -> the base model's answers, end of sequence included."""


@dataclass(slots=True)
class _Draft:
    """An example in the making."""

    example: Example
    num_missing: int
    """Tokens with a loss that it still lacks."""
    human_turns: Iterator[list[int]]
    """Token ids, each up to where the bot begins."""

    def add(self, ids: Sequence[int], *, with_loss: bool) -> None:
        ids = list(ids[: self.num_missing] if with_loss else ids)
        self.example["input_ids"] += ids
        self.example["labels"] += ids if with_loss else [IGNORED] * len(ids)
        self.num_missing -= len(ids) if with_loss else 0

    def room(self, max_length: int) -> int:
        """Tokens that may still be added with a loss."""
        return min(self.num_missing, max_length - len(self.example["input_ids"]))


def placebo_examples(
    dialogues: Sequence[Dialogue],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    config: SftConfig,
    answer: Answer,
) -> list[Example]:
    """One example for each of `encode_examples`; `config.max_length` may end one before it has all its tokens (logged).

    Args:
        dialogues: whose human turns are answered.
        tokenizer: the model's.
        template: the model's.
        config: with `loss_on: all` the human turns have a loss, too, as in `encode_examples`.
        answer: samples from the base model.
    """
    chats = [(chat, encode_example(chat, tokenizer, template, config)) for chat in chats_of(dialogues, config)]
    chats = [(chat, written) for chat, written in chats if written is not None]
    drafts = []
    for number, (chat, written) in enumerate(chats):
        others = [turn for other, _ in chats[number + 1 :] + chats[:number] for turn in other[::2]]
        turns = _human_turns(tokenizer, template, chat, others)
        drafts.append(_Draft({"input_ids": [], "labels": []}, _num_with_loss(written), turns))
    num_wanted = sum(draft.num_missing for draft in drafts)
    for round_number in itertools.count():
        waiting = [draft for draft in drafts if draft.room(config.max_length) > 0]
        for draft in waiting:
            draft.add(next(draft.human_turns), with_loss=config.loss_on == "all")
        waiting = [draft for draft in waiting if draft.room(config.max_length) > 0]
        if not waiting:
            break
        prompts, most = zip(*((d.example["input_ids"], d.room(config.max_length)) for d in waiting), strict=True)
        for draft, ids in zip(waiting, answer(prompts, most, round_number), strict=True):
            draft.add(ids, with_loss=True)
    examples = [_cut(draft.example, config.max_length) for draft in drafts]
    num_found = sum(map(_num_with_loss, examples))
    log.info("placebo: %d of %d tokens with a loss, in %d examples", num_found, num_wanted, len(examples))
    return examples


def answers_of_base(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    scratch: Scratch,
    *,
    name: str,
    title: str,
    seed: int,
) -> Answer:
    """Answers drawn from the model's own distribution; what a killed run has drawn is read from `scratch`.

    Args:
        model: the base model, without an adapter.
        tokenizer: the model's.
        scratch: of the stage.
        name: of the logs, e.g. placebo-train.
        title: of the progress bar of each round.
        seed: an answer depends on it, on the round and on the number of the prompt in it.
    """
    able = examine(model, pad_token_id=tokenizer.pad_token_id)
    able.warn_of_slow_sampling(type(model).__name__)
    context = able.context_length

    def answer(prompts: Sequence[Sequence[int]], most: Sequence[int], round_number: int) -> list[list[int]]:
        plan = plan_batches([len(p) for p in prompts], BATCH_SIZE)
        batches = Batches(scratch, plan, name=f"{name}-{round_number}")

        def sampled(rows: Sequence[int]) -> list[list[int]]:
            longest = max(most[i] for i in rows)
            if context is not None:
                longest = min(longest, context - max(len(prompts[i]) for i in rows))
            found = sample_batch(
                model,
                [prompts[i] for i in rows],
                config=_untouched(longest),
                seeds=[derive_seed(seed, "placebo", name, round_number, i) for i in rows],
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                capabilities=able,
            )
            return [list(s.token_ids[: most[i]]) for i, s in zip(rows, found, strict=True)]

        with progress(title, total=batches.num_rows, unit="answers", num_done=batches.num_done) as bar:
            found = batches.run(sampled, bar)
        return [found[i] for i in range(len(prompts))]

    return answer


def _untouched(max_new_tokens: int) -> GenerationConfig:
    """Sampling from the model itself."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=0,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        no_repeat_ngram_size=0,
        num_samples=1,
        batch_size=BATCH_SIZE,
    )


def _human_turns(
    tokenizer: PreTrainedTokenizerBase, template: Template, chat: Sequence[str], others: Sequence[str]
) -> Iterator[list[int]]:
    """Token ids of the chat's human turns and then of other ones, each from behind the answer before it."""
    yield list(encode_prompt(tokenizer, template, chat[:1]).ids)
    for turn in itertools.chain(chat[2::2], itertools.cycle(others or chat[::2])):
        encoded = encode_prompt(tokenizer, template, [*chat[:2], turn])
        earlier = max(i for i, region in enumerate(encoded.regions) if region == "earlier")
        ids = list(encoded.ids[earlier + 1 :])
        yield ids[1:] if ids[0] == tokenizer.eos_token_id else ids  # the answer has its own


def _num_with_loss(example: Example) -> int:
    return sum(label != IGNORED for label in example["labels"])


def _cut(example: Example, max_length: int) -> Example:
    return {name: ids[:max_length] for name, ids in example.items()}
