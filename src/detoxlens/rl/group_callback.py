"""PPO's rewards, guards, validation and history for TRL's trainers: a reward function and a TrainerCallback."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from detoxlens.common.errors import UserError
from detoxlens.jobs.save_timer import SaveTimer
from detoxlens.models.end_tokens import end_token_ids
from detoxlens.models.forward import evaluating
from detoxlens.models.trainer_checkpoints import keep_newest
from detoxlens.rl.checkpoint import TrainingState, adapter_state, save_kept
from detoxlens.rl.likelihoods import measure
from detoxlens.rl.monitor import check_kl, reason_to_stop, rollout_metrics
from detoxlens.rl.rewards import check_not_all_empty, grade_responses, reward_responses
from detoxlens.rl.rollout import response_of
from detoxlens.rl.trainer import PolicyTrainer, Prompts, Row
from detoxlens.rl.world import World


class GroupCallback(TrainerCallback):
    """Rewards and measures every batch that TRL samples, and validates the adapter: PPO's guards and history."""

    def __init__(
        self,
        trainer: PolicyTrainer,
        algorithm: str,
        prompts: Prompts,
        validation_prompts: Prompts,
        state: TrainingState,
        fingerprint: str,
        report: Callable[[Row], None],
    ):
        self.trainer, self.algorithm = trainer, algorithm
        self.prompts, self.validation_prompts = prompts, validation_prompts
        self.state, self.fingerprint, self.report = state, fingerprint, report
        self.row: Row = {}
        self.timer = SaveTimer()

    def reward(
        self, prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: object
    ) -> list[float]:
        """What TRL asks for after sampling; the row of history that it leaves describes the policy before the update.

        Raises:
            UserError: as `PPO.train`.
        """
        trainer, config, step = self.trainer, self.trainer.config, self.state.step + 1
        ends = end_token_ids(trainer.model, trainer.tokenizer)
        responses = [
            response_of(
                trainer.tokenizer,
                self.prompts[int(number)],
                ids,
                "eos" if ids[-1] in ends else "length",
                trainer.decoding,
            )
            for number, ids in zip(prompts, completion_ids, strict=True)
        ]
        texts = [r.text for r in responses]  # TRL's own `completions` are not cut at stop texts
        rewarded = reward_responses(
            trainer.reward,
            texts,
            [r.finish_reason for r in responses],
            step=step,
            empty_response_reward=config.empty_response_reward,
            missing_eos_penalty=config.missing_eos_penalty,
        )
        check_not_all_empty(rewarded, step=step)
        with evaluating(trainer.model):
            measured = measure(
                trainer.model,
                None,
                responses,
                trainer.decoding,
                eos_token_id=ends,
                micro_batch_size=config.micro_batch_size,
            )
        check_kl(measured, responses, limit=config.kl.explosion_nats_per_sequence, step=step)
        graded = None if trainer.grader is None else grade_responses(trainer.grader, texts)
        self.row = {
            "step": step,
            **rollout_metrics(responses, rewarded, measured, graded),
            "ppo/kl_coef": config.kl.coef,
        }
        self.state.stop_reason = reason_to_stop(measured, config, step=step)
        return [r.reward for r in trainer.rewarded(rewarded, step=step)]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if state.global_step == 0:
            self._validate(row := {"step": 0})
            if len(row) > 1:
                self.state.history.append(row)
                self.report(row)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: object) -> None:
        """Ends a step: TRL logs after the last of its updates, just before it writes a checkpoint."""
        if "loss" not in logs:  # the summary at the end of training
            return
        row, config, algorithm = self.row, self.trainer.config, self.algorithm
        row |= {"ppo/learning_rate": logs["learning_rate"]}
        row |= {f"{algorithm}/{name}": logs[name] for name in ("loss", "grad_norm") if name in logs}
        if not all(math.isfinite(value) for value in row.values()):
            raise UserError(
                f"ppo step {row['step']}: the loss or gradient of {algorithm} is not a finite number. Lower "
                f"ppo.learning_rate, or use float32 or bfloat16 weights; the last checkpoint is kept."
            )
        self.state.step += 1
        last = self.state.step == config.num_steps or self.state.stop_reason is not None
        if last or self.state.step % config.validation.every == 0:
            self._validate(row)
        self.state.history.append(row)
        if self.state.best is None:
            self.state.best_adapter = adapter_state(self.trainer.model)
        if self.state.stop_reason is not None:
            control.should_training_stop = control.should_save = True
        if control.should_save or self.timer.is_due():
            control.should_save = True
            save_kept(Path(args.output_dir) / f"kept-{state.global_step}", self.state, self.fingerprint)
        self.report(row)

    def on_save(self, args: Any, state: Any, control: Any, **_: object) -> None:
        self.timer.restart()
        keep_newest(Path(args.output_dir), step=state.global_step)
        for kept in Path(args.output_dir).glob("kept-*"):
            if kept.name != f"kept-{state.global_step}":
                shutil.rmtree(kept)

    def _validate(self, row: Row) -> None:
        self.trainer.judge(self.state, self.validation_prompts, row, World())
