"""Proximal policy optimisation of a LoRA adapter on a text reward. Schulman et al. 2017 (arXiv 1707.06347).

One copy of the weights serves three roles: policy (adapter on), reference (adapter off), and value function (a small
head on the policy's backbone). No dropout is active: with it, p / p_old would differ from 1 before any update.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from detoxlens.errors import UserError
from detoxlens.models.config import GenerationConfig
from detoxlens.models.value_head import ValueHead
from detoxlens.rl.advantages import gae, masked_whiten, token_rewards
from detoxlens.rl.checkpoint import (
    TrainingState,
    adapter_state,
    load_adapter_state,
    load_checkpoint,
    save_checkpoint,
)
from detoxlens.rl.config import PpoConfig
from detoxlens.rl.controller import KlController
from detoxlens.rl.likelihoods import (
    Measured,
    length_sorted,
    measure,
    response_logits,
    response_tokens,
    token_logprobs,
    unpack_bits,
)
from detoxlens.rl.losses import clip_fraction, entropy_nats, explained_variance, policy_loss, value_loss
from detoxlens.rl.monitor import check_finite, check_kl, reason_to_stop, rollout_metrics
from detoxlens.rl.rewards import Grader, Reward, reward_responses
from detoxlens.rl.rollout import Response, prompts_of_step, sample_responses
from detoxlens.rl.validation import validate
from detoxlens.seeding import numpy_rng

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoResult:
    """What `PPO.train` leaves behind beside the adapter in the model."""

    history: list[dict[str, float | int]]
    """One row per PPO step (row 0: the validation before training), `step` and group/quantity -> number."""
    kept_step: int
    """PPO steps that the kept adapter has seen."""
    stop_reason: str | None
    """Why training ended before `num_steps`; None if it did not."""


class PPO:
    """PPO(model, tokenizer, reward, config=config, seed=0).train(prompts) -> PpoResult; the model holds the result.

    Args:
        model: any causal language model with a trainable LoRA adapter; trained in place.
        tokenizer: the policy's; has an end-of-sequence and a padding token.
        reward: texts -> numbers, higher is better; sees the responses' text only.
        config: see `PpoConfig`.
        decoding: how responses are sampled, in training and validation: one per prompt, `batch_size` at a time.
        seed: of prompt order, sampling and minibatches.
        grader: texts -> toxicity, not the reward's classifier: logged at every step so that reward hacking shows.
        selector: texts -> toxicity; judges the validation prompts. Without it the last adapter is kept.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        reward: Reward,
        *,
        config: PpoConfig,
        decoding: GenerationConfig,
        seed: int,
        grader: Grader | None = None,
        selector: Grader | None = None,
    ):
        if not isinstance(model, PeftModel) or not any(p.requires_grad for p in model.parameters()):
            raise UserError(
                f"PPO trains a LoRA adapter and got {type(model).__name__} without trainable adapter weights; wrap the "
                f"model with peft.get_peft_model, or load its adapter with is_trainable=True."
            )
        if decoding.temperature == 0:
            raise UserError(
                "generation.temperature=0 always gives the same response, which teaches PPO nothing; set it above 0."
            )
        self.model, self.tokenizer, self.reward = model.eval(), tokenizer, reward
        self.config, self.decoding, self.seed = config, decoding, seed
        self.grader, self.selector = grader, selector
        self.value_head = ValueHead(model.get_output_embeddings().in_features).to(model.device)
        self.adapter_parameters = [p for p in model.parameters() if p.requires_grad]
        self.parameters = [*self.adapter_parameters, *self.value_head.parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.adapter_parameters, "peak_lr": config.learning_rate},
                {"params": list(self.value_head.parameters()), "peak_lr": config.value_learning_rate},
            ],
            weight_decay=config.weight_decay,
        )

    def train(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        validation_prompts: Sequence[Sequence[int]] = (),
        checkpoint_folder: Path | None = None,
        on_step: Callable[[dict[str, float | int]], None] | None = None,
    ) -> PpoResult:
        """Trains the adapter; leaves the best one (given selector and validation prompts), else the last, in the model.

        Args:
            prompts: token ids; every one is used once before any is used again.
            validation_prompts: token ids of prompts that are not trained on.
            checkpoint_folder: where to continue from and what to write every `config.checkpoint_every` steps.
            on_step: told every new row of the history.

        Raises:
            UserError: fewer prompts than one batch; a bad reward; all responses empty; a loss or gradient that is not
                a number; a KL beyond `kl.explosion_nats_per_sequence`. The last checkpoint stays.
        """
        config = self.config
        if len(prompts) < config.rollout_batch_size:
            raise UserError(
                f"PPO has {len(prompts)} prompts, fewer than one batch (ppo.rollout_batch_size="
                f"{config.rollout_batch_size}); lower ppo.rollout_batch_size or provide more prompts."
            )
        fingerprint = _fingerprint(config, self.decoding, self.seed, prompts, validation_prompts)
        state = self._resumed(checkpoint_folder, fingerprint)
        report = on_step or (lambda row: None)
        if state is None:
            state = self._started()
            self._validate(state, validation_prompts, row := {"step": 0})
            if len(row) > 1:
                state.history.append(row)
                report(row)
        while state.step < config.num_steps and state.stop_reason is None:
            chosen = prompts_of_step(len(prompts), config.rollout_batch_size, step=state.step, seed=self.seed)
            row = self._step(state, [prompts[i] for i in chosen])
            state.step += 1
            last = state.step == config.num_steps or state.stop_reason is not None
            if last or state.step % config.validation.every == 0:
                self._validate(state, validation_prompts, row)
            state.history.append(row)
            if checkpoint_folder is not None and (last or state.step % config.checkpoint_every == 0):
                self._checkpoint(checkpoint_folder, state, fingerprint)
            report(row)
        if state.best is not None:
            load_adapter_state(self.model, state.best_adapter)
        return PpoResult(
            history=state.history,
            kept_step=state.step if state.best is None else state.best.step,
            stop_reason=state.stop_reason,
        )

    def _step(self, state: TrainingState, prompts: Sequence[Sequence[int]]) -> dict[str, float | int]:
        """One PPO step; returns its row of the history, which describes the policy *before* the update."""
        config, number = self.config, state.step + 1
        responses = sample_responses(
            self.model,
            self.tokenizer,
            prompts,
            self.decoding,
            seed=self.seed,
            names=("rollout", state.step),
            batch_size=self._decode_batch_size(),
        )
        rewarded = reward_responses(
            self.reward,
            [r.text for r in responses],
            [r.finish_reason for r in responses],
            step=number,
            empty_response_reward=config.empty_response_reward,
            missing_eos_penalty=config.missing_eos_penalty,
        )
        measured = measure(
            self.model,
            self.value_head,
            responses,
            self.decoding,
            eos_token_id=self.tokenizer.eos_token_id,
            micro_batch_size=config.micro_batch_size,
        )
        check_kl(measured, responses, limit=config.kl.explosion_nats_per_sequence, step=number)
        rewards = token_rewards(
            torch.tensor([r.reward for r in rewarded], device=self.model.device),
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
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_share * group["peak_lr"]
        row = {"step": number, **rollout_metrics(responses, rewarded, measured, self.grader)}
        row["ppo/explained_variance"] = explained_variance(measured.values[measured.mask], returns[measured.mask])
        row["ppo/kl_coef"] = state.controller.coef
        row["ppo/learning_rate"] = learning_rate_share * config.learning_rate
        state.stop_reason = reason_to_stop(measured, config, step=number)
        if state.stop_reason is None:
            row |= self._update(responses, measured, advantages, returns, number)
            state.controller = state.controller.updated(measured.kl_nats_per_sequence, len(responses))
        return row

    def _update(
        self, responses: Sequence[Response], measured: Measured, advantages: Tensor, returns: Tensor, number: int
    ) -> dict[str, float]:
        """`num_epochs` passes over the rollout in minibatches; means over all of them."""
        config = self.config
        sums = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction", "grad_norm"), 0.0)
        num_minibatches = 0
        with _recomputing_activations(self.model, enabled=config.gradient_checkpointing):
            for epoch in range(config.num_epochs):
                order = numpy_rng(self.seed, "minibatches", number, epoch).permutation(len(responses)).tolist()
                for start in range(0, len(order), config.minibatch_size):
                    minibatch = order[start : start + config.minibatch_size]
                    num_tokens = int(measured.mask[minibatch].sum())
                    for rows in length_sorted(responses, minibatch, config.micro_batch_size):
                        self._backward(responses, rows, measured, advantages, returns, num_tokens, sums, number)
                    grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
                    check_finite(grad_norm, "gradient", [responses[i] for i in minibatch], step=number)
                    self.optimizer.step()
                    self.optimizer.zero_grad(set_to_none=True)
                    sums["grad_norm"] += grad_norm.item()
                    num_minibatches += 1
        return {f"ppo/{name}": value / num_minibatches for name, value in sums.items()}

    def _backward(
        self,
        responses: Sequence[Response],
        rows: list[int],
        measured: Measured,
        advantages: Tensor,
        returns: Tensor,
        num_tokens: int,
        sums: dict[str, float],
        number: int,
    ) -> None:
        """Adds the gradient of one micro batch, as its share of the minibatch's mean over `num_tokens` tokens."""
        config = self.config
        batch = [responses[i] for i in rows]
        mask = measured.mask[rows]
        logits, values = response_logits(
            self.model, batch, self.value_head, value_gradient_to_backbone=config.value_gradient_to_backbone
        )
        support = None
        if measured.supports is not None:
            support = unpack_bits(torch.cat([measured.supports[i] for i in rows]), logits.shape[1])
        tokens = response_tokens(batch, logits.device)
        logprobs = token_logprobs(logits, tokens, temperature=self.decoding.temperature, support=support)
        old_logprobs = measured.logprobs[rows][mask]
        policy = policy_loss(logprobs, old_logprobs, advantages[rows][mask], clip_range=config.clip_range)
        value = value_loss(values, measured.values[rows][mask], returns[rows][mask], clip_range=config.value_clip_range)
        loss = policy + config.value_coef * value
        if config.entropy_coef:
            log_distribution = (logits / self.decoding.temperature).log_softmax(-1)
            loss = loss - config.entropy_coef * entropy_nats(log_distribution).sum()
        check_finite(loss, "loss", batch, step=number)
        (loss / num_tokens).backward()
        share = len(tokens) / num_tokens
        clipped = clip_fraction(logprobs.detach(), old_logprobs, clip_range=config.clip_range)
        sums["policy_loss"] += policy.item() / num_tokens
        sums["value_loss"] += value.item() / num_tokens
        sums["clip_fraction"] += clipped.item() * share

    def _validate(self, state: TrainingState, prompts: Sequence[Sequence[int]], row: dict[str, float | int]) -> None:
        """Judges the adapter as it is, adds the verdict to `row`, and keeps a copy of the adapter if it is the best."""
        if self.selector is None or not prompts:
            return
        verdict = validate(
            self.model,
            self.value_head,
            self.tokenizer,
            prompts,
            self.selector,
            self.decoding,
            step=state.step,
            seed=self.seed,
            batch_size=self.config.validation.batch_size,
        )
        row |= verdict.metrics()
        budget = self.config.kl.budget_nats_per_sequence
        if state.best is None or verdict.beats(state.best, kl_budget=budget):
            state.best, state.best_adapter = verdict, adapter_state(self.model)

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
            folder, model=self.model, value_head=self.value_head, optimizer=self.optimizer, fingerprint=fingerprint
        )

    def _checkpoint(self, folder: Path, state: TrainingState, fingerprint: str) -> None:
        save_checkpoint(
            folder,
            state,
            model=self.model,
            value_head=self.value_head,
            optimizer=self.optimizer,
            fingerprint=fingerprint,
        )

    def _decode_batch_size(self) -> int:
        size = self.decoding.batch_size
        return self.config.rollout_batch_size if size == "auto" else size


def schedule(step: int, config: PpoConfig) -> float:
    """Share of the peak learning rate at PPO step `step` (from 0), in (0, 1]: warm-up, then constant or linear."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    return (config.num_steps - step) / (config.num_steps - config.warmup_steps)


@contextmanager
def _recomputing_activations(model: PeftModel, *, enabled: bool) -> Iterator[None]:
    """Gradient checkpointing inside, for the layers alone: the dropout modules within them stay in evaluation mode."""
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)] if enabled else []
    if enabled:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
        if enabled:
            model.activation_checkpointing_disable()


def _fingerprint(
    config: PpoConfig, decoding: GenerationConfig, seed: int, *prompt_sets: Sequence[Sequence[int]]
) -> str:
    """sha256 of everything that a checkpoint must agree with."""
    settings = [config.model_dump(mode="json"), decoding.model_dump(mode="json"), seed]
    ids = [[[int(i) for i in prompt] for prompt in prompts] for prompts in prompt_sets]
    return hashlib.sha256(json.dumps([settings, ids]).encode()).hexdigest()
