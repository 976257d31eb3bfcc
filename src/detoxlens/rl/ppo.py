"""Proximal policy optimisation of a LoRA adapter on a text reward. Schulman et al. 2017 (arXiv 1707.06347).

One copy of the weights serves three roles: policy (adapter on), reference (adapter off), and value function (a small
head on the policy's backbone, or on the backbone with a second adapter). No dropout is active: with it, p / p_old would
differ from 1 before any update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from detoxlens.common.errors import UserError
from detoxlens.jobs.save_timer import SaveTimer
from detoxlens.models.end_tokens import end_token_ids
from detoxlens.rl.advantages import gae, masked_whiten, token_rewards
from detoxlens.rl.checkpoint import TrainingState, fingerprint_of, load_checkpoint, save_checkpoint
from detoxlens.rl.controller import KlController
from detoxlens.rl.experience import Experience, gathered
from detoxlens.rl.learner import Learner, Marks, schedule
from detoxlens.rl.likelihoods import measure
from detoxlens.rl.losses import explained_variance
from detoxlens.rl.monitor import check_kl, reason_to_stop, rollout_metrics
from detoxlens.rl.regularized import check_penalty
from detoxlens.rl.rewards import check_not_all_empty, grade_responses, reward_responses
from detoxlens.rl.rollout import prompts_of_step, sample_responses
from detoxlens.rl.trainer import PolicyTrainer, PpoResult, Prompts, Row
from detoxlens.rl.value_function import ValueFunction
from detoxlens.rl.world import World


@dataclass(eq=False)
class PPO(PolicyTrainer):
    """PPO(model, tokenizer, reward, config=config, seed=0).train(prompts) -> PpoResult; the model holds the result.

    The other arguments are `PolicyTrainer`'s; one response per prompt, `decoding.batch_size` at a time.

    Args:
        world: the processes that share the work (`world.join`), all given the same arguments; None is this one alone.
        marks: what `config.regularizer` looks at: token ids of each training prompt -> per token the number of the
            exchange that it is the human's text of (0: none; the last is replied to), and whether its word is toxic.

    Raises:
        UserError: as `PolicyTrainer`, or the regularizer cannot be computed on this model or these prompts.
    """

    world: World | None = None
    marks: Marks | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model.eval()
        self.world = self.world or World(device=str(self.model.device))
        if self.config.regularizer.is_on:
            check_penalty(self.config.regularizer, self.model, self.marks or {}, seed=self.seed)

    def train(
        self,
        prompts: Prompts,
        *,
        validation_prompts: Prompts = (),
        checkpoint_folder: Path | None = None,
        on_step: Callable[[Row], None] | None = None,
    ) -> PpoResult:
        """Trains the adapter; leaves the best one (given selector and validation prompts), else the last, in the model.

        Args:
            prompts: token ids; every one is used once before any is used again.
            validation_prompts: token ids of prompts that are not trained on.
            checkpoint_folder: where to continue from and what to write every `config.checkpoint_every` steps.
            on_step: called with every new row of the history.

        Raises:
            UserError: fewer prompts than one batch; a bad reward; all responses empty; a loss or gradient that is not
                a number; a KL beyond `kl.explosion_nats_per_sequence`; another process has ended. The last checkpoint
                stays.
        """
        config = self.config
        if len(prompts) < config.rollout_batch_size:
            raise UserError(
                f"PPO has {len(prompts)} prompts, fewer than one batch (ppo.rollout_batch_size="
                f"{config.rollout_batch_size}); lower ppo.rollout_batch_size or provide more prompts."
            )
        self.value_function = ValueFunction(self.model, config.value_function, autocast=config.autocast)
        self.learner = Learner(
            self.model,
            self.value_function,
            config=config,
            decoding=self.decoding,
            seed=self.seed,
            world=self.world,
            marks=self.marks,
        )
        self.world.copy_from_main(self.learner.parameters)
        try:
            return self._train(prompts, validation_prompts, checkpoint_folder, on_step or (lambda row: None))
        finally:
            self.value_function.remove_adapter()

    def _train(
        self,
        prompts: Prompts,
        validation_prompts: Prompts,
        checkpoint_folder: Path | None,
        report: Callable[[Row], None],
    ) -> PpoResult:
        config = self.config
        fingerprint = fingerprint_of(
            [
                config.model_dump(mode="json"),
                self.decoding.model_dump(mode="json"),
                self.seed,
                self.world.size,
                self.placebo_kl_nats,
            ],
            prompts,
            validation_prompts,
        )
        state = self._resumed(checkpoint_folder, fingerprint)
        if state is None:
            state = self._started()
            self.judge(state, validation_prompts, row := {"step": 0}, self.world)
            if len(row) > 1:
                state.history.append(row)
                report(row)
        timer = SaveTimer()
        while state.step < config.num_steps and state.stop_reason is None:
            chosen = prompts_of_step(len(prompts), config.rollout_batch_size, step=state.step, seed=self.seed)
            row = self._step(state, [prompts[i] for i in chosen])
            state.step += 1
            last = state.step == config.num_steps or state.stop_reason is not None
            if last or state.step % config.validation.every == 0:
                self.judge(state, validation_prompts, row, self.world)
            last = last or state.stop_reason is not None
            state.history.append(row)
            due = last or state.step % config.checkpoint_every == 0 or self.world.from_main(timer.is_due)
            if checkpoint_folder is not None and due:
                self._checkpoint(checkpoint_folder, state, fingerprint)
                timer.restart()
            report(row)
        return self.finish(state)

    def _step(self, state: TrainingState, prompts: Prompts) -> Row:
        """One PPO step; returns its row of the history, which describes the policy *before* the update."""
        config, number = self.config, state.step + 1
        batch = gathered(self.world, len(prompts), lambda rows: self._collect(prompts, rows, state.step))
        responses, measured = batch.responses, batch.measured
        check_not_all_empty(batch.rewarded, step=number)
        check_kl(measured, responses, limit=config.kl.explosion_nats_per_sequence, step=number)
        rewards = token_rewards(
            torch.tensor([r.reward for r in self.rewarded(batch.rewarded, step=number)], device=self.model.device),
            measured.policy_logprobs,
            measured.ref_logprobs,
            measured.mask,
            kl_coef=state.controller.coef,
            estimator=config.kl.estimator,
        )
        if config.whiten_rewards:
            rewards = masked_whiten(rewards, measured.mask, shift_mean=False)
        advantages, returns = gae(rewards, measured.values, measured.mask, gamma=config.gamma, lam=config.lam)
        if config.whiten_advantages:
            advantages = masked_whiten(advantages, measured.mask)
        learning_rate_share = schedule(state.step, config)
        self.learner.set_learning_rate(learning_rate_share)
        row = {"step": number, **rollout_metrics(responses, batch.rewarded, measured, batch.graded)}
        row["ppo/explained_variance"] = explained_variance(measured.values[measured.mask], returns[measured.mask])
        row["ppo/kl_coef"] = state.controller.coef
        row["ppo/learning_rate"] = learning_rate_share * config.learning_rate
        state.stop_reason = reason_to_stop(measured, config, step=number)
        if state.stop_reason is None:
            row |= self.learner.update(responses, measured, advantages, returns, step=number)
            state.controller = state.controller.updated(measured.kl_nats_per_sequence, len(responses))
        return row

    def _collect(self, prompts: Prompts, rows: list[int], step: int) -> Experience:
        """Samples, rewards, measures and grades the responses to the prompts `rows` of the batch."""
        config, size = self.config, self.decoding.batch_size
        responses = sample_responses(
            self.model,
            self.tokenizer,
            [prompts[i] for i in rows],
            self.decoding,
            seed=self.seed,
            names=("rollout", step),
            rows=rows,
            batch_size=config.rollout_batch_size if size == "auto" else size,
            capabilities=self.capabilities,
        )
        rewarded = reward_responses(
            self.reward,
            [r.text for r in responses],
            [r.finish_reason for r in responses],
            step=step + 1,
            empty_response_reward=config.empty_response_reward,
            missing_eos_penalty=config.missing_eos_penalty,
        )
        measured = measure(
            self.model,
            self.value_function.head,
            responses,
            self.decoding,
            eos_token_id=end_token_ids(self.model, self.tokenizer),
            micro_batch_size=config.micro_batch_size,
            autocast=config.autocast,
        )
        measured = self.value_function.measured(measured, responses, micro_batch_size=config.micro_batch_size)
        graded = None if self.grader is None else grade_responses(self.grader, [r.text for r in responses])
        return Experience(responses=responses, measured=measured, rewarded=rewarded, graded=graded)

    def _started(self) -> TrainingState:
        kl = self.config.kl
        controller = KlController(
            coef=kl.coef,
            target=kl.target_nats_per_sequence if kl.control == "adaptive" else None,
            horizon=kl.horizon,
        )
        return TrainingState(step=0, controller=controller, history=[], best=None, best_adapter={}, stop_reason=None)

    def _resumed(self, folder: Path | None, fingerprint: str) -> TrainingState | None:
        if folder is None:
            return None
        return load_checkpoint(
            folder,
            model=self.model,
            value_function=self.value_function,
            optimizer=self.learner.optimizer,
            fingerprint=fingerprint,
        )

    def _checkpoint(self, folder: Path, state: TrainingState, fingerprint: str) -> None:
        """Written by the main process; the others wait, so that none is a step ahead of what is on disk."""
        if self.world.is_main:
            save_checkpoint(
                folder,
                state,
                model=self.model,
                value_function=self.value_function,
                optimizer=self.learner.optimizer,
                fingerprint=fingerprint,
            )
        self.world.wait()
