"""Counter-narrative fine-tuning: TRL's SFTTrainer on token ids with an explicit loss mask.

dialogue -> templates.encode_dialogue -> (input_ids, labels)      labels: -100 where no loss is wanted
    <human> Zorgons are dumb <bot> That is unfair <eos>
    -100    -100    ...      -100  That is unfair <eos>           loss_on = replies
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.common.seeding import derive_seed
from detoxlens.data.templates import Template, encode_dialogue
from detoxlens.models import training
from detoxlens.models.capabilities import examine
from detoxlens.models.training import History, OnStep, arguments, callbacks
from detoxlens.params.regularizer import Kind
from detoxlens.params.sft import SftConfig
from detoxlens.regularization.regularizer import Regularizer, check_regularizer
from detoxlens.sft.loss import IGNORED, trainer_class
from detoxlens.sft.packing import check_packing
from detoxlens.sft.regularized import Marker, check_examples, regularized

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

NAMES = {
    "loss": "sft/loss",
    "grad_norm": "sft/grad_norm",
    "learning_rate": "sft/learning_rate",
    "eval_loss": "sft/val_loss",
} | {kind: f"sft/{kind}" for kind in get_args(Kind)}
"""TRL's name of a curve -> ours."""
Example = dict[str, list[int]]
"""`input_ids` and `labels`, of one length; with a regularizer also its marks (`sft.regularized`)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What `sft.max_length` does to examples: Cut(num_examples=192, num_cut=12, num_dropped=2, max_length=256)"""

    num_examples: int
    """Before any is dropped."""
    num_cut: int
    """Longer than `max_length` tokens: their ends are not learnt, nor is the end of their last reply."""
    num_dropped: int
    """Cut before there was anything to learn."""
    max_length: int

    def __str__(self) -> str:
        return (
            f"{self.num_cut} of {self.num_examples} training examples are longer than sft.max_length="
            f"{self.max_length} tokens and cut there; {self.num_dropped} of them have no reply before and are dropped"
        )


def encode_examples(
    dialogues: Sequence[Dialogue], tokenizer: PreTrainedTokenizerBase, template: Template, config: SftConfig
) -> list[Example]:
    """Dialogues as examples, cut to `config.max_length`; one left without any label is dropped."""
    return encode_and_count(dialogues, tokenizer, template, config)[0]


def encode_and_count(
    dialogues: Sequence[Dialogue],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    config: SftConfig,
    *,
    mark: Marker | None = None,
) -> tuple[list[Example], Cut]:
    """`encode_examples`, and how many of them were cut and dropped; `mark` adds what a regularizer looks at."""
    chats = chats_of(dialogues, config)
    whole = [whole_example(chat, tokenizer, template, config) for chat in chats]
    if mark is not None:
        whole = [example | mark(chat) for example, chat in zip(whole, chats, strict=True)]
    examples = [cut for example in whole if (cut := cut_to(example, config.max_length)) is not None]
    num_cut = sum(len(example["input_ids"]) > config.max_length for example in whole)
    return examples, Cut(len(whole), num_cut, len(whole) - len(examples), config.max_length)


def chats_of(dialogues: Sequence[Dialogue], config: SftConfig) -> list[tuple[str, ...]]:
    """The turns of each example: whole dialogues, or every prefix of one that ends in a reply."""
    return [
        dialogue.turns[:end]
        for dialogue in dialogues
        for end in (range(2, len(dialogue.turns) + 1, 2) if config.examples == "prefixes" else (len(dialogue.turns),))
    ]


def encode_example(
    chat: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: Template, config: SftConfig
) -> Example | None:
    """One chat, cut to `config.max_length`; None when no label is left."""
    return cut_to(whole_example(chat, tokenizer, template, config), config.max_length)


def whole_example(
    chat: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: Template, config: SftConfig
) -> Example:
    """One chat of any length."""
    ids, is_reply = encode_dialogue(tokenizer, template, chat)
    keep = is_reply if config.loss_on == "replies" else [True] * len(ids)
    labels = [token if kept else IGNORED for token, kept in zip(ids, keep, strict=True)]
    return {"input_ids": list(ids), "labels": labels}


def cut_to(example: Example, max_length: int) -> Example | None:
    """The example's first tokens; None when no label is left."""
    cut = {name: values[:max_length] for name, values in example.items()}
    return None if all(label == IGNORED for label in cut["labels"]) else cut


def validation_sample(dialogues: Sequence[Dialogue], most: int | None) -> list[Dialogue]:
    """At most `most` of the dialogues, in their order; which ones depends on their ids alone."""
    return _sample(dialogues, most, lambda d: derive_seed(0, "sft validation", d.dialogue_id))


def training_sample(dialogues: Sequence[Dialogue], config: SftConfig, *, seed: int) -> tuple[list[Dialogue], SftConfig]:
    """The dialogues that the training reads, and the settings with which it reads them.

    Of a training shorter than an epoch these are that share of them, chosen by their ids and the seed, read once: what
    is made for each dialogue beforehand, such as a placebo's answers, is made for no other. A longer one reads all.
    """
    if config.num_epochs >= 1:
        return list(dialogues), config
    most = math.ceil(config.num_epochs * len(dialogues))
    chosen = _sample(dialogues, most, lambda d: derive_seed(seed, "sft training", d.dialogue_id))
    return chosen, config.model_copy(update={"num_epochs": 1.0})


def _sample(dialogues: Sequence[Dialogue], most: int | None, rank: Callable[[Dialogue], int]) -> list[Dialogue]:
    """At most `most` of the dialogues, those of the lowest rank, in their order."""
    kept = {d.dialogue_id for d in sorted(dialogues, key=rank)[:most]}
    return [d for d in dialogues if d.dialogue_id in kept]


def num_steps(num_examples: int, config: SftConfig) -> int:
    """Optimizer steps of a run without packing and early stopping; an upper bound for the progress bar otherwise."""
    per_epoch = math.ceil(math.ceil(num_examples / config.batch_size) / config.gradient_accumulation_steps)
    return math.ceil(per_epoch * config.num_epochs)


def fine_tune(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    train: Sequence[Example],
    validation: Sequence[Example],
    config: SftConfig,
    seed: int,
    checkpoints: Path,
    on_step: OnStep,
) -> History:
    """Trains the adapter of `model` in place and leaves the one with the lowest validation loss in it.

    Args:
        model: a PeftModel with a trainable adapter.
        tokenizer: gives the padding token.
        train: examples of `encode_examples`; marked, if `config` has a regularizer.
        validation: likewise, from the split `val`; without marks.
        config: hyperparameters.
        seed: order of the data and dropout.
        checkpoints: scratch folder; a run that finds checkpoints there continues from the newest.
        on_step: called after every optimizer step.

    Returns:
        One row per logged step: sft/loss and sft/learning_rate, or sft/val_loss (nats per token). With a regularizer
        sft/loss holds the penalty, and sft/<kind> is the quantity that is penalised.

    Raises:
        UserError: nothing to train or validate on, the loss is not finite, packed examples would see each other, or the
            regularizer cannot be computed.
    """
    from datasets import Dataset
    from trl import SFTConfig as TrlConfig

    for name, examples in (("train", train), ("val", validation)):
        if not examples:
            raise UserError(f"sft: the split {name!r} holds no dialogue with a reply; check data.dialoconan.")
    able = examine(model, pad_token_id=tokenizer.pad_token_id)
    make_trainer = trainer_class(model, able, packing=config.packing)
    if config.packing:
        check_packing(model)
    if config.regularizer.is_on:
        regularizer = Regularizer(config.regularizer, seed=seed, section="sft")
        if config.packing:
            raise UserError(
                f"sft.packing=true with sft.regularizer.kind={config.regularizer.kind!r}: the penalty is on one prompt "
                "and its reply, not on a row of several. Set sft.packing: false; sft.group_by_length: true saves "
                "padding too."
            )
        check_regularizer(regularizer, model)
        check_examples(regularizer, train)
        make_trainer = regularized(make_trainer, regularizer)

    trainer = make_trainer(
        model=model,
        args=TrlConfig(
            **arguments(config, model, seed=seed, checkpoints=checkpoints),
            max_length=config.max_length,
            packing=config.packing,
            train_sampling_strategy="group_by_length" if config.group_by_length else "random",
            dataset_kwargs={"skip_prepare_dataset": not config.packing},
        ),
        train_dataset=Dataset.from_list(list(train)),
        eval_dataset=Dataset.from_list(list(validation)),
        processing_class=tokenizer,
        callbacks=callbacks(config, checkpoints=checkpoints, names=NAMES, on_step=on_step),
    )
    history = training.train(trainer, checkpoints=checkpoints, names=NAMES)
    if any(not math.isfinite(row.get("sft/val_loss", 0.0)) for row in history):
        raise UserError(f"sft: the validation loss is not a number; lower sft.learning_rate={config.learning_rate}.")
    return history
