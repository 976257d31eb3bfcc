"""What training through transformers' Trainer shares here: arguments, progress, checkpoints, resuming, history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from detoxlens.jobs.save_timer import SaveTimer
from detoxlens.models.trainer_checkpoints import keep_newest, last_complete_checkpoint
from detoxlens.params.section import Autocast

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Trainer, TrainerCallback

History = list[dict[str, float | int]]
OnStep = Callable[[int, int, dict[str, float | int]], None]
"""Told the optimizer steps newly done, those done in all, and the newest row of the history."""


class TrainingConfig(Protocol):
    """What the params sections `sft` and `preference` have in common; their docstrings say what each is."""

    num_epochs: float
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    autocast: Autocast
    eval_every: int
    patience: int | None


def arguments(config: TrainingConfig, model: PeftModel, *, seed: int, checkpoints: Path) -> dict[str, Any]:
    """Keyword arguments for TRL's configs: validate and save every `eval_every` steps, keep the lowest loss."""
    return {
        "output_dir": str(checkpoints),
        "num_train_epochs": config.num_epochs,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": config.warmup_steps,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "activation_checkpointing": config.gradient_checkpointing,
        "router_aux_loss_coef": 0.0,  # else a mixture of experts adds its balance to the nats
        "eval_strategy": "steps",
        "eval_steps": config.eval_every,
        "save_strategy": "steps",
        "save_steps": config.eval_every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "logging_steps": max(1, config.eval_every // 5),
        "logging_nan_inf_filter": False,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": model.device.type == "cpu",
        "bf16": in_bfloat16(model, config.autocast),
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def in_bfloat16(model: PeftModel, autocast: Autocast) -> bool:
    """Are a training pass's matrix products in bfloat16, as the weights are or as the params ask?"""
    import torch

    return torch.bfloat16 in (model.dtype, autocast and getattr(torch, autocast))


def callbacks(
    config: TrainingConfig, *, checkpoints: Path, names: Mapping[str, str], on_step: OnStep
) -> list[TrainerCallback]:
    """Progress, and checkpoints: at each validation, and in between when the last one is long ago.

    Args:
        config: patience.
        checkpoints: the trainer's folder; the newest and the best stay.
        names: see `history`.
        on_step: see `OnStep`.
    """
    from transformers import EarlyStoppingCallback, TrainerCallback

    timer = SaveTimer()

    class Report(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            on_step(state.global_step, state.global_step, {})  # what an interrupted run has left done

        def on_step_end(self, args, state, control, **_):
            on_step(1, state.global_step, (history(state.log_history, names) or [{}])[-1])
            if (
                state.global_step % args.logging_steps == 0 and timer.is_due()
            ):  # between two, a mean would be cut in two
                control.should_save = True

        def on_save(self, args, state, control, **_):
            timer.restart()
            keep_newest(checkpoints, step=state.global_step, best_step=state.best_global_step)

    return [Report(), *([EarlyStoppingCallback(config.patience)] if config.patience else [])]


def train(trainer: Trainer, *, checkpoints: Path, names: Mapping[str, str]) -> History:
    """Trains from the newest complete checkpoint, if there is one; the best adapter is left in the model."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the progress bar replaces it
    checkpoints.mkdir(parents=True, exist_ok=True)
    newest = last_complete_checkpoint(checkpoints)
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    return history(trainer.state.log_history, names)


def history(log: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> History:
    """Trainer's log as rows with our names, in one order; wall times left out (they would change the bytes).

    A resumed trainer has its log from a file whose keys are sorted.

    Args:
        log: of the trainer.
        names: its key -> ours.
    """
    rows = []
    for entry in log:
        row = {name: float(entry[key]) for key, name in names.items() if key in entry}
        if row:
            rows.append({"step": int(entry["step"]), **row})
    return rows
