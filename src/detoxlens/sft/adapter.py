"""From examples to an adapter folder: what the stages that learn from examples have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.records import ModelRef
from detoxlens.jobs.progress import Snapshot, StepCallback, progress
from detoxlens.jobs.scratch import Scratch, replace_output
from detoxlens.models.adapters import save_adapter_folder
from detoxlens.models.lora import add_adapter
from detoxlens.params.lora import LoraConfig
from detoxlens.params.sft import SftConfig
from detoxlens.sft.train import Cut, Example, fine_tune, num_steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_adapter(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    scratch: Scratch,
    *,
    root: Path,
    base_ref: ModelRef,
    folder: Path,
    title: str,
    train: Sequence[Example],
    validation: Sequence[Example],
    config: SftConfig,
    lora: LoraConfig,
    seed: int,
    card: str,
    callback: StepCallback | None,
) -> None:
    """Trains a fresh adapter of `base` in `scratch` and moves it into `folder`.

    Args:
        base: the base model.
        tokenizer: its own.
        scratch: of the stage; finished here.
        root: repository root.
        base_ref: what `base` is.
        folder: the stage's output.
        title: model/variant, of the progress bar.
        train: examples.
        validation: likewise.
        config: hyperparameters.
        lora: the adapter's shape.
        seed: of the training.
        card: Markdown of the model card.
        callback: what watches the training.
    """
    policy = add_adapter(base, lora)
    total = num_steps(len(train), config)
    with progress(f"fine-tune {title}", total=total, unit="steps") as bar:

        def on_step(num_new: int, num_done: int, row: dict[str, float | int]) -> None:
            bar.advance(num_new)
            if callback is not None:
                callback(Snapshot(fraction=min(1.0, num_done / total), row=row, model=policy, tokenizer=tokenizer))

        history = fine_tune(
            policy,
            tokenizer,
            train=train,
            validation=validation,
            config=config,
            seed=seed,
            checkpoints=scratch.path / "checkpoints",
            on_step=on_step,
        )
    built = scratch.path / "adapter"
    save_adapter_folder(policy, built, root=root, base_ref=base_ref, history=history, card=card, final_folder=folder)
    replace_output(built, folder)
    scratch.finish()


def model_card(title: str, how: str, config: SftConfig, lora: LoraConfig, cut: Cut) -> str:
    """What the adapter's README says: how it was made, nothing about how good it is (the report does).

    Args:
        title: `model / variant`.
        how: what was learnt from, as a phrase.
        config: hyperparameters.
        lora: the adapter's shape.
        cut: of the written examples.
    """
    return (
        f"# {title}\n\n"
        f"LoRA adapter (r {lora.r}, alpha {lora.alpha:g}, on {lora.where}) trained by "
        f"{how}: loss on {config.loss_on}, {config.num_epochs:g} epochs, learning rate "
        f"{config.learning_rate:g}, batch {config.batch_size * config.gradient_accumulation_steps}. The checkpoint "
        "with the lowest validation loss was kept (`history.jsonl`).\n\n"
        f"Of what was written, {cut}.\n"
    )
