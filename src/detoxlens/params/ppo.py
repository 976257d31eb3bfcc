"""Settings of PPO (params section `ppo`). Schulman et al. 2017 (arXiv 1707.06347), Ziegler et al. 2019 (1909.08593).

The authors (arXiv 2309.00751) ran TRL's defaults of 2023: learning rate 5e-6, batch 64, minibatch 8 or 4, 4 epochs, KL
coefficient 0.2 steered to 6 nats with a horizon of 10,000 sequences. Responses are sampled as the params section
`generation` says: training and evaluation see the same distribution.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.params.section import Autocast, Section

RewardScale = Literal["probability", "log_odds"]


class KlConfig(Section):
    """Penalty for leaving the reference, which is the base model (the adapter switched off)."""

    control: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive` steers the coefficient to `target_nats_per_sequence`, `fixed` keeps `coef`."""
    coef: float = Field(default=0.2, ge=0)
    """Reward taken per nat; with `adaptive` the initial value."""
    target_nats_per_sequence: float = Field(default=6.0, gt=0)
    """What the adaptive controller steers to."""
    horizon: int = Field(default=10_000, ge=1)
    """Sequences over which the adaptive controller reacts."""
    estimator: Literal["k1", "k3"] = "k1"
    """Of the penalty, per sampled token; what is logged, steered and budgeted is the exact KL."""
    budget_nats_per_sequence: float = Field(default=10.0, gt=0)
    """An adapter is kept as the best only if its KL on the validation prompts is within this."""
    stop_nats_per_sequence: float | None = Field(default=None, gt=0)
    """Training ends, in good order, when a batch's KL exceeds this; None never stops."""
    explosion_nats_per_sequence: float = Field(default=200.0, gt=0)
    """Training ends with an error when a batch's KL exceeds this."""


class ValidationConfig(Section):
    """How the best adapter is chosen: lowest toxicity by the selector among those within the KL budget."""

    every: int = Field(default=10, ge=1)
    """PPO steps between validations; the untrained adapter and the last one are always validated."""
    num_prompts: int = Field(default=64, ge=1)
    """The first so many of the validation prompts are answered."""
    filter: str = "p50"
    """Which of the `splits` the validation prompts are taken from, e.g. p50."""
    batch_size: int = Field(default=64, ge=1)
    """Completions decoded together."""


class PpoConfig(Section):
    """Params section `ppo`. Defaults are those of the TRL that the authors used, for users of `PPO` on its own."""

    num_steps: int = Field(ge=1)
    """PPO steps; each samples one rollout batch and learns from it."""
    rollout_batch_size: int = Field(default=64, ge=1)
    """Responses per step."""
    minibatch_size: int = Field(default=8, ge=1)
    """Responses per optimizer step; divides `rollout_batch_size`."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Responses per forward and backward pass of one process; changes memory and speed, not what is computed."""
    num_epochs: int = Field(default=4, ge=1)
    """Passes over each rollout batch."""
    num_generations: int = Field(default=4, ge=2)
    """Responses per prompt, of rloo and grpo alone: `rollout_batch_size` holds that many times fewer prompts."""
    learning_rate: float = Field(default=5e-6, gt=0)
    """Of AdamW, for the adapter."""
    value_learning_rate: float = Field(default=1e-3, gt=0)
    """Of AdamW, for the value function."""
    schedule: Literal["constant", "linear"] = "constant"
    """Of both learning rates over the PPO steps, after the warm-up; `linear` decays to zero."""
    warmup_steps: int = Field(default=0, ge=0)
    """PPO steps over which both learning rates rise to their values."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW (Loshchilov and Hutter 2019)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient of adapter and value head together (each by itself with `value_function: lora`) is scaled down to
    this L2 norm."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount per token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""
    clip_range: float = Field(default=0.2, gt=0)
    """Of the probability ratio in the policy loss."""
    value_clip_range: float = Field(default=0.2, gt=0)
    """Of the change of a value in the value loss, in units of the reward."""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of the value loss."""
    value_function: Literal["head", "lora"] = "head"
    """`head`: a linear layer on the policy's backbone; `lora`: the same on the backbone with a second adapter, shaped
    like the policy's and trained at `value_learning_rate`, so that the value loss never touches the policy."""
    value_gradient_to_backbone: bool = True
    """With `head`: does the value loss train the policy's adapter too, or the value head alone?"""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, per nat."""
    whiten_rewards: bool = False
    """Scale the token rewards of a batch to variance 1 (their mean is kept)."""
    whiten_advantages: bool = True
    """Scale the advantages of a batch to mean 0 and variance 1."""
    reward_scale: RewardScale = "probability"
    """`probability`: 1 - P(toxic), as the authors; `log_odds`: log (1 - P) / P, in nats, for a model whose answers the
    classifier hardly ever finds toxic: .98 and .998 are 2.3 apart. The unit of the settings in "units of the reward";
    TRL's detoxification example takes logits (https://huggingface.co/docs/trl/v0.11.4/detoxifying_a_lm)."""
    empty_response_reward: float = 0.0
    """Reward of a response without any text: silence is not an answer, and no classifier is asked about it. With
    `log_odds` 0 is an even chance of being toxic."""
    missing_eos_penalty: float = Field(default=0.0, ge=0)
    """Taken from the reward of a response that was cut off by its length."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    autocast: Autocast = None
    """Format of the matrix products in training passes where it is not the weights' own (`detoxlens plan` measures
    whether it would be faster here); weights, optimizer, sampling and attribution keep theirs."""
    kl: KlConfig = KlConfig()
    """Penalty that keeps the policy near the base model, and the limits of its KL."""
    validation: ValidationConfig = ValidationConfig()
    """How often, and on which prompts, the policy is judged; the best adapter is kept."""
    regularizer: RegularizerConfig = RegularizerConfig()
    """Off unless a variant's overrides turn it on; its gradient is added to that of each minibatch's loss."""
    stop_base_perplexity: float | None = Field(default=None, gt=1)
    """Training ends, in good order, when a batch's perplexity under the base model exceeds this; None never stops."""
    checkpoint_every: int = Field(default=10, ge=1)
    """PPO steps between checkpoints in the scratch folder."""
    max_context_turns: int = Field(default=5, ge=1)
    """Turns of a training prompt: a hater turn and what was said before it. Odd, so that the hater also begins; the
    authors took whole dialogue prefixes, any number above the longest dialogue's."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Longer prompts are left out, counted in the log and in the model card."""

    @field_validator("max_context_turns")
    @classmethod
    def _hater_begins(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, so that the hater begins and ends; try {value - 1}")
        return value

    @field_validator("minibatch_size")
    @classmethod
    def _divides_rollout(cls, value: int, info: ValidationInfo) -> int:
        rollout = info.data.get("rollout_batch_size", value)
        if rollout % value:
            divisors = [d for d in range(1, rollout + 1) if rollout % d == 0]
            raise ValueError(f"must divide rollout_batch_size={rollout}; try {max(d for d in divisors if d <= value)}")
        return value
