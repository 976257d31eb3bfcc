"""DPO and KTO by TRL's trainers, on token ids and with the reference's log-probabilities known beforehand.

DPO: Rafailov et al. 2023 (arXiv 2305.18290), eq. 7; KTO: Ethayarajh et al. 2024 (arXiv 2402.01306), eq. 8. With
r(y) = log p(y | x) - log p_base(y | x), summed over the answer's tokens, nats:

    DPO   -log sigmoid(beta (r(chosen) - r(rejected)))
    KTO   1 - sigmoid(beta (r(y) - z)) for a chosen y, 1 - sigmoid(beta (z - r(y))) for a rejected one
          z = max(0, mean of r(y') over the batch), y' the answer of the row before: an estimate of KL(policy || base)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.errors import UserError
from detoxlens.common.seeding import numpy_rng
from detoxlens.models import training
from detoxlens.models.capabilities import examine
from detoxlens.models.fused_head import check_head_is_free, fused_loss_is_right
from detoxlens.models.training import History, OnStep, arguments, callbacks
from detoxlens.params.preference import PreferenceConfig
from detoxlens.preference.pairs import Pair

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
"""What TRL's collators take; see `dpo_rows` and `kto_rows`."""
References = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[float]]
"""(prompts, answers) -> log p(answer | prompt) under the base model, summed over the tokens, nats."""
NAMES = {
    "loss": "preference/loss",
    "grad_norm": "preference/grad_norm",
    "learning_rate": "preference/learning_rate",
    "rewards/margins": "preference/margin",
    "rewards/accuracies": "preference/accuracy",
    "kl": "preference/kl_nats_per_sequence",
    "eval_loss": "preference/val_loss",
    "eval_rewards/margins": "preference/val_margin",
    "eval_rewards/accuracies": "preference/val_accuracy",
    "eval_kl": "preference/val_kl_nats_per_sequence",
}
"""TRL's name of a curve -> ours. Margin: beta (r(chosen) - r(rejected)); accuracy (DPO): share of pairs with one above
0; KL (KTO): z."""


def dpo_rows(pairs: Sequence[Pair]) -> list[Row]:
    """One row per pair."""
    return [
        {
            "prompt_ids": list(p.prompt_ids),
            "chosen_ids": list(p.chosen_ids),
            "rejected_ids": list(p.rejected_ids),
            "ref_chosen_logps": p.chosen_ref_nats,
            "ref_rejected_logps": p.rejected_ref_nats,
        }
        for p in pairs
    ]


def kto_rows(pairs: Sequence[Pair], references: References, *, batch_size: int, seed: int) -> list[Row]:
    """Two rows per pair, in the order in which TRL trains on them: it does not shuffle.

    A chosen answer and the rejected one of another pair take turns, so that every batch has as many of each and no
    answer's neighbour is to the same prompt. Within a batch each row has the answer of the row before it for the KL
    term, the first that of the last:

        chosen 2   rejected 0   chosen 1   rejected 2   ...      KL of row 1: the answer chosen 2 to prompt 0
    """
    order = numpy_rng(seed, "kto").permutation(len(pairs)).tolist()
    half = len(pairs) // 2
    turns = [row for i, j in zip(order, order[half:] + order[:half], strict=True) for row in ((i, True), (j, False))]
    rows: list[Row] = [
        {
            "prompt_ids": list(pairs[i].prompt_ids),
            "completion_ids": list(pairs[i].chosen_ids if chosen else pairs[i].rejected_ids),
            "label": chosen,
            "ref_logps": pairs[i].chosen_ref_nats if chosen else pairs[i].rejected_ref_nats,
        }
        for i, chosen in turns
    ]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for row, before in zip(batch, [batch[-1], *batch[:-1]], strict=True):
            row["KL_completion_ids"] = before["completion_ids"]
    found = references([row["prompt_ids"] for row in rows], [row["KL_completion_ids"] for row in rows])
    for row, nats in zip(rows, found, strict=True):
        row["ref_KL_logps"] = nats
    return rows


def num_steps(num_rows: int, config: PreferenceConfig) -> int:
    """Optimizer steps of a run without early stopping."""
    per_epoch = math.ceil(math.ceil(num_rows / config.batch_size) / config.gradient_accumulation_steps)
    return math.ceil(per_epoch * config.num_epochs)


def tune(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    algorithm: str,
    train: Sequence[Row],
    validation: Sequence[Row],
    config: PreferenceConfig,
    seed: int,
    checkpoints: Path,
    on_step: OnStep,
) -> History:
    """Trains the adapter of `model` in place and leaves the one with the lowest validation loss in it.

    Args:
        model: a PeftModel with a trainable adapter; its output layer and embeddings are the base's.
        tokenizer: gives the padding token.
        algorithm: dpo or kto.
        train: rows of `dpo_rows` or `kto_rows`.
        validation: likewise, from the split `val`.
        config: hyperparameters.
        seed: order of the data.
        checkpoints: scratch folder; a run that finds checkpoints there continues from the newest.
        on_step: called after every optimizer step.

    Returns:
        One row per logged step, its curves as in `NAMES`.

    Raises:
        UserError: TRL's log-probabilities are not the model's own, the adapter is on the output layer, or the loss is
            not finite.
    """
    trainer = make_trainer(
        model,
        tokenizer,
        algorithm=algorithm,
        train=train,
        validation=validation,
        config=config,
        seed=seed,
        checkpoints=checkpoints,
        on_step=on_step,
    )
    try:
        history = training.train(trainer, checkpoints=checkpoints, names=NAMES)
    finally:
        model.get_base_model().__dict__.pop("forward", None)  # TRL's fused head
        model.eval()
    if any(not math.isfinite(row.get("preference/val_loss", 0.0)) for row in history):
        raise UserError(
            f"preference: the validation loss is not a number; lower preference.learning_rate={config.learning_rate:g}."
        )
    return history


def make_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    algorithm: str,
    train: Sequence[Row],
    validation: Sequence[Row],
    config: PreferenceConfig,
    seed: int,
    checkpoints: Path,
    on_step: OnStep,
) -> Any:
    """TRL's trainer for this algorithm, given rows instead of texts; see `tune`."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    check_head_is_free(model, what=algorithm, instead="variant of kind rl with algorithm: ppo")
    able = examine(model, pad_token_id=tokenizer.pad_token_id)
    if not fused_loss_is_right(model, filler_id=able.filler_id, padding="right"):
        raise UserError(
            f"{algorithm}: TRL multiplies the backbone's output by the output layer; for "
            f"{type(model.get_base_model()).__name__} that gives other probabilities than its own. Use kind: rl with "
            "algorithm: ppo, or kind: sft."
        )
    own_config, own_trainer = {"dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer)}[algorithm]

    class OnTokenIds(own_trainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset  # no text is read

        def _precompute_ref_logps(self, dataset, *_):
            return dataset  # known beforehand

    trainer = OnTokenIds(
        model=model,
        args=own_config(
            **arguments(config, model, seed=seed, checkpoints=checkpoints),
            beta=config.beta,
            max_length=None,  # rows are short enough
            precompute_ref_log_probs=True,
            disable_dropout=True,
        ),
        train_dataset=Dataset.from_list(list(train)),
        eval_dataset=Dataset.from_list(list(validation)),
        processing_class=tokenizer,
        callbacks=callbacks(config, checkpoints=checkpoints, names=NAMES, on_step=on_step),
    )
    if "ref" in model.peft_config:  # TRL's copy of the fresh adapter; the base model's log-probabilities are known
        model.delete_adapter("ref")
    return trainer


def all_answers(pairs: Sequence[Pair]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(prompt, answer) of every answer, chosen before rejected."""
    for p in pairs:
        yield p.prompt_ids, p.chosen_ids
        yield p.prompt_ids, p.rejected_ids
