"""Metrics and limits of a PPO step, against reward hacking, divergence and non-finite numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detoxlens.common.errors import UserError
from detoxlens.evaluation.fluency import distinct_n
from detoxlens.params.ppo import PpoConfig
from detoxlens.rl.likelihoods import Measured
from detoxlens.rl.rewards import RewardedResponse
from detoxlens.rl.rollout import Response


def rollout_metrics(
    responses: Sequence[Response],
    rewarded: Sequence[RewardedResponse],
    measured: Measured,
    graded: Sequence[float | None] | None,
) -> dict[str, float]:
    """group/quantity -> number for one rollout batch: is the reward earned, or hacked?

    Args:
        responses: one per prompt.
        rewarded: what each earned.
        measured: what policy and reference make of them.
        graded: independent toxicity of each, None where there is none; None without a grader.
    """
    num = len(responses)
    row = {
        "ppo/reward": math.fsum(r.reward for r in rewarded) / num,
        "ppo/kl_nats_per_token": measured.kl_nats_per_token,
        "ppo/kl_nats_per_sequence": measured.kl_nats_per_sequence,
        "ppo/policy_entropy_nats": (measured.entropy.sum() / measured.mask.sum()).item(),
        "ppo/base_perplexity": measured.base_perplexity,
        "ppo/response_length_tokens": measured.mask.sum().item() / num,
        "ppo/eos_share": sum(r.finish_reason == "eos" for r in responses) / num,
        "ppo/empty_share": sum(r.status == "empty" for r in rewarded) / num,
    }
    if num_cut := sum(r.truncated for r in rewarded):
        row["ppo/reward_truncated_share"] = num_cut / num
    if num_stopped := sum(r.finish_reason == "stop" for r in responses):
        row["ppo/next_turn_share"] = num_stopped / num
    for n in (1, 2, 3):
        if (distinct := distinct_n([r.token_ids for r in responses], n)) is not None:
            row[f"ppo/distinct_{n}"] = distinct
    if judged := [toxicity for toxicity in graded or () if toxicity is not None]:
        row["ppo/independent_toxicity"] = math.fsum(judged) / len(judged)
    return row


def reason_to_stop(measured: Measured, config: PpoConfig, *, step: int) -> str | None:
    """Which budget the batch exceeds, in words; None if training may continue."""
    kl, perplexity = measured.kl_nats_per_sequence, measured.base_perplexity
    if (limit := config.kl.stop_nats_per_sequence) is not None and kl > limit:
        return f"step {step}: KL {kl:.2f} nats per sequence > ppo.kl.stop_nats_per_sequence={limit}"
    if (limit := config.stop_base_perplexity) is not None and perplexity > limit:
        return f"step {step}: perplexity {perplexity:.1f} under the base model > ppo.stop_base_perplexity={limit}"
    return None


def check_kl(measured: Measured, responses: Sequence[Response], *, limit: float, step: int) -> None:
    """Raises UserError if the KL per sequence exceeds `limit` nats or is not a number."""
    kl = measured.kl_nats_per_sequence
    if not kl <= limit:  # NaN too
        per_response = measured.kl.sum(dim=1).nan_to_num(nan=torch.inf)
        raise UserError(
            f"ppo step {step}: the policy has left the base model, KL {kl:.1f} nats per sequence "
            f"(ppo.kl.explosion_nats_per_sequence={limit}), most in the response "
            f"{responses[int(per_response.argmax())].text!r}. Lower ppo.learning_rate or raise ppo.kl.coef; the last "
            f"checkpoint is kept."
        )


def check_finite(value: Tensor, what: str, responses: Sequence[Response], *, step: int) -> None:
    """Raises UserError if the loss or gradient `value` is not a finite number."""
    if not torch.isfinite(value):
        raise UserError(
            f"ppo step {step}: the {what} is {value.item()}, in a batch with the response {responses[0].text!r}. Lower "
            f"ppo.learning_rate, or use float32 or bfloat16 weights; the last checkpoint is kept."
        )
