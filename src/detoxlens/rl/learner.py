"""From a batch of experience to new weights: several passes of clipped policy and value losses in minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from detoxlens.common.seeding import numpy_rng
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.regularization.columns import MarkedSequence
from detoxlens.regularization.regularizer import Regularizer
from detoxlens.rl.likelihoods import (
    Measured,
    length_sorted,
    response_logits,
    response_tokens,
    token_logprobs,
    unpack_bits,
)
from detoxlens.rl.losses import clip_fraction, entropy_nats, policy_loss, value_loss
from detoxlens.rl.monitor import check_finite
from detoxlens.rl.rollout import Response
from detoxlens.rl.value_function import ValueFunction
from detoxlens.rl.world import World

if TYPE_CHECKING:
    from peft import PeftModel


Marks = Mapping[tuple[int, ...], tuple[Sequence[int], Sequence[bool]]]
"""Token ids of a prompt -> `exchange` and `is_toxic` of its tokens (`MarkedSequence`)."""


class Learner:
    """The optimizer of adapter and value function, and what it does with a rollout.

    Args:
        model: its trainable weights are the policy's adapter.
        value_function: trained with it.
        config: see `PpoConfig`.
        decoding: how the responses were sampled; its temperature counts.
        seed: of the minibatches.
        world: the processes among which each minibatch is divided.
        marks: of each prompt, if `config` has a regularizer; see `PPO`.
    """

    def __init__(
        self,
        model: PeftModel,
        value_function: ValueFunction,
        *,
        config: PpoConfig,
        decoding: GenerationConfig,
        seed: int,
        world: World,
        marks: Marks | None = None,
    ):
        self.model, self.value_function, self.world = model, value_function, world
        self.config, self.decoding, self.seed = config, decoding, seed
        self.marks = marks or {}
        on = config.regularizer.is_on
        self.regularizer = Regularizer(config.regularizer, seed=seed, section="ppo") if on else None
        self.adapter_parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.adapter_parameters, "peak_lr": config.learning_rate},
                {"params": value_function.parameters, "peak_lr": config.value_learning_rate},
            ],
            weight_decay=config.weight_decay,
        )

    @property
    def parameters(self) -> list[Tensor]:
        """All that is trained, the policy's adapter first."""
        return [*self.adapter_parameters, *self.value_function.parameters]

    def set_learning_rate(self, share: float) -> None:
        """Sets every learning rate to its share of the peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]

    def update(
        self, responses: Sequence[Response], measured: Measured, advantages: Tensor, returns: Tensor, *, step: int
    ) -> dict[str, float]:
        """`num_epochs` passes over the rollout of PPO step `step` in minibatches; means over all of them."""
        config = self.config
        sums = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction"), 0.0)
        sum_of_grad_norms, num_minibatches = 0.0, 0
        quantities: list[float] = []
        with _recomputing_activations(self.model, enabled=config.gradient_checkpointing):
            for epoch in range(config.num_epochs):
                order = numpy_rng(self.seed, "minibatches", step, epoch).permutation(len(responses)).tolist()
                for start in range(0, len(order), config.minibatch_size):
                    minibatch = order[start : start + config.minibatch_size]
                    num_tokens = int(measured.mask[minibatch].sum())
                    (by_length,) = length_sorted(responses, minibatch, len(minibatch))
                    for rows in length_sorted(responses, self.world.share(by_length), config.micro_batch_size):
                        self._backward(responses, rows, measured, advantages, returns, num_tokens, sums, step)
                    if self.regularizer is not None:
                        quantities += self._regularize(self.regularizer, responses, minibatch, step, epoch)
                    self.world.sum_gradients(self.parameters)
                    sum_of_grad_norms += self._descend([responses[i] for i in minibatch], step)
                    num_minibatches += 1
        totals = dict(zip(sums, self.world.sum_of(list(sums.values())), strict=True))
        means = {f"ppo/{name}": total / num_minibatches for name, total in totals.items()}
        if quantities:
            means[self.regularizer.metric] = sum(quantities) / len(quantities)
        return means | {"ppo/grad_norm": sum_of_grad_norms / num_minibatches}

    def _regularize(
        self, regularizer: Regularizer, responses: Sequence[Response], minibatch: list[int], step: int, epoch: int
    ) -> list[float]:
        """Adds the gradient of the penalty, weight times the quantity's mean over the minibatch; returns that mean.

        An empty list where no response of the minibatch has anything to look at.
        """
        rows = {}
        for i in minibatch:
            found = regularizer.rows(self._marked(responses[i]), step, epoch, i)
            if len(found):
                rows[i] = found
        drawn = [list(rows)[k] for k in regularizer.drawn(len(rows), step, epoch, minibatch[0])]
        total = 0.0
        for part in length_sorted(responses, self.world.share(drawn), self.config.micro_batch_size):
            values = regularizer.values(self.model, [self._marked(responses[i]) for i in part], [rows[i] for i in part])
            if regularizer.is_felt:
                (regularizer.config.weight * values.sum() / len(drawn)).backward()
            total += values.sum().item()
        (total,) = self.world.sum_of([total])
        return [total / len(drawn)] if drawn else []

    def _marked(self, response: Response) -> MarkedSequence:
        """The response behind its prompt."""
        exchange, is_toxic = self.marks[response.prompt_ids]
        num, last = len(response.token_ids), max(exchange)
        return MarkedSequence(
            ids=(*response.prompt_ids, *response.token_ids),
            exchange=(*exchange, *[-last] * num),
            is_toxic=(*is_toxic, *[False] * num),
        )

    def _descend(self, minibatch: Sequence[Response], step: int) -> float:
        """One optimizer step on the gradient that lies in the weights; returns its norm before clipping.

        A value function with an adapter of its own is clipped by itself: its gradient must not shrink the policy's.
        """
        config = self.config
        clipped = [self.adapter_parameters, self.value_function.parameters]
        if not self.value_function.has_adapter:
            clipped = [self.parameters]
        norms = [torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm) for parameters in clipped]
        for norm in norms:
            check_finite(norm, "gradient", minibatch, step=step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norms[0].item()

    def _backward(
        self,
        responses: Sequence[Response],
        rows: list[int],
        measured: Measured,
        advantages: Tensor,
        returns: Tensor,
        num_tokens: int,
        sums: dict[str, float],
        step: int,
    ) -> None:
        """Adds the gradient of one micro batch, as its share of the minibatch's mean over `num_tokens` tokens."""
        config, own_adapter = self.config, self.value_function.has_adapter
        batch = [responses[i] for i in rows]
        mask = measured.mask[rows]
        logits, values = response_logits(
            self.model,
            batch,
            None if own_adapter else self.value_function.head,
            value_gradient_to_backbone=config.value_gradient_to_backbone,
            autocast=config.autocast,
        )
        support = None
        if measured.supports is not None:
            support = unpack_bits(torch.cat([measured.supports[i] for i in rows]), logits.shape[1])
        tokens = response_tokens(batch, logits.device)
        logprobs = token_logprobs(logits, tokens, temperature=self.decoding.temperature, support=support)
        old_logprobs = measured.logprobs[rows][mask]
        policy = policy_loss(logprobs, old_logprobs, advantages[rows][mask], clip_range=config.clip_range)

        def loss_of_values(values: Tensor) -> Tensor:
            old_values = measured.values[rows][mask]
            return value_loss(values, old_values, returns[rows][mask], clip_range=config.value_clip_range)

        value = None if own_adapter else loss_of_values(values)
        loss = policy if own_adapter else policy + config.value_coef * value
        if config.entropy_coef:
            log_distribution = (logits / self.decoding.temperature).log_softmax(-1)
            loss = loss - config.entropy_coef * entropy_nats(log_distribution).sum()
        check_finite(loss, "loss", batch, step=step)
        (loss / num_tokens).backward()
        if own_adapter:  # a pass of its own: recomputed activations must meet the adapter that they were made with
            with self.value_function.adapter_on():
                value = loss_of_values(self.value_function.of_batch(batch))
                check_finite(value, "value loss", batch, step=step)
                (config.value_coef * value / num_tokens).backward()
        share = len(tokens) / num_tokens
        clipped = clip_fraction(logprobs.detach(), old_logprobs, clip_range=config.clip_range)
        sums["policy_loss"] += policy.item() / num_tokens
        sums["value_loss"] += value.item() / num_tokens
        sums["clip_fraction"] += clipped.item() * share


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
