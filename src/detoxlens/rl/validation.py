"""Selection of the kept adapter: of those close to the base model, the one that answers unseen prompts least toxically.

The last adapter is often not the best, and the one with the highest reward may have learnt to please the reward model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.common.text import is_blank
from detoxlens.models.capabilities import Capabilities
from detoxlens.models.end_tokens import end_token_ids
from detoxlens.params.generation import GenerationConfig
from detoxlens.rl.experience import Experience, gathered
from detoxlens.rl.likelihoods import measure
from detoxlens.rl.rewards import Grader
from detoxlens.rl.rollout import sample_responses
from detoxlens.rl.world import World

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


SATURATED = 0.95
"""Mean reward, 0..1, from which on PPO has next to nothing to learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Validation(step=10, toxicity=0.04, kl_nats_per_sequence=3.1, base_perplexity=9.5, empty_share=0.0)"""

    step: int
    """PPO steps that the adapter has seen; 0 is the adapter that training started from."""
    toxicity: float
    """Mean by the selector, 0..1; an empty answer counts 1 here, so that silence cannot win."""
    kl_nats_per_sequence: float
    base_perplexity: float
    empty_share: float
    unscored_share: float = 0.0
    """Answers with text that the selector could not judge; they are in no mean."""

    def beats(self, other: Validation, *, kl_budget: float, kl_target: float | None = None) -> bool:
        """Less toxic, if both are within the KL budget; else the one that is, else the one closer to it.

        With a target the one whose KL is nearer to it, whatever its toxicity: a placebo is not selected for it.
        """
        if kl_target is not None:
            return abs(self.kl_nats_per_sequence - kl_target) < abs(other.kl_nats_per_sequence - kl_target)
        within, other_within = self.kl_nats_per_sequence <= kl_budget, other.kl_nats_per_sequence <= kl_budget
        if within and other_within:
            return self.toxicity < other.toxicity
        return within if within != other_within else self.kl_nats_per_sequence < other.kl_nats_per_sequence

    def metrics(self) -> dict[str, float]:
        """For the history: group/quantity -> number."""
        unscored = {"ppo/val_unscored_share": self.unscored_share} if self.unscored_share else {}
        return unscored | {
            "ppo/val_toxicity": self.toxicity,
            "ppo/val_kl_nats_per_sequence": self.kl_nats_per_sequence,
            "ppo/val_base_perplexity": self.base_perplexity,
            "ppo/val_empty_share": self.empty_share,
        }


def kept_validation(history: Sequence[Mapping[str, float]], *, kl_budget: float) -> Validation | None:
    """The validation that a training's adapter was kept for, from its history; None without any."""
    best = None
    for row in history:
        if "ppo/val_toxicity" in row:
            found = Validation(
                step=int(row["step"]),
                toxicity=row["ppo/val_toxicity"],
                kl_nats_per_sequence=row["ppo/val_kl_nats_per_sequence"],
                base_perplexity=row["ppo/val_base_perplexity"],
                empty_share=row["ppo/val_empty_share"],
            )
            if best is None or found.beats(best, kl_budget=kl_budget):
                best = found
    return best


def nothing_learnt(history: Sequence[Mapping[str, float]], *, kl_budget: float, reward_is_prob: bool) -> str | None:
    """Why the adapter that training began with was kept, by its curves, and what to change; None where it was not.

    Args:
        history: of the training, its validations among it.
        kl_budget: nats per sequence.
        reward_is_prob: whether the reward lies in 0..1, so that one near 1 has nothing to add.
    """
    validations = [row for row in history if "ppo/val_toxicity" in row]
    kept = kept_validation(history, kl_budget=kl_budget)
    if kept is None or kept.step > 0 or len(validations) < 2:
        return None
    first, *later = validations
    curve = ", ".join(f"{row['ppo/val_toxicity']:.3f}" for row in later)
    highest = max(row["ppo/val_kl_nats_per_sequence"] for row in later)
    rewards = [row["ppo/reward"] for row in history if "ppo/reward" in row]
    if highest > kl_budget:
        remedy = "KL left its budget: lower ppo.learning_rate, or raise ppo.kl.coef"
    elif reward_is_prob and rewards and rewards[0] > SATURATED:
        remedy = "the reward had nothing to add from the start: another reward_model, or ppo.reward_scale: log_odds"
    else:
        remedy = "raise ppo.num_steps or ppo.learning_rate, and look whether the reward rises"
    reward = f" Reward {rewards[0]:.3f} at the first step, {rewards[-1]:.3f} at the last." if rewards else ""
    return (
        f"no later step was less toxic on validation prompts within {kl_budget:g} nats of KL per sequence: "
        f"{first['ppo/val_toxicity']:.3f} before training, then {curve} (KL up to {highest:.2f}).{reward} What it "
        f"began with was kept. To change: {remedy}."
    )


def mean_toxicity(selector: Grader, texts: Sequence[str]) -> float:
    """Mean toxicity of the answers; an empty one counts 1, one that the selector could not judge is left out."""
    return _judged(selector, texts)[0]


def _judged(selector: Grader, texts: Sequence[str]) -> tuple[float, float]:
    """`mean_toxicity`, and the share of answers that it leaves out."""
    filled = [text for text in texts if not is_blank(text)]
    judged = [t for t in (selector(filled) if filled else []) if t is not None]
    num_empty = len(texts) - len(filled)
    mean = (sum(judged) + num_empty) / max(1, len(judged) + num_empty)
    return mean, (len(filled) - len(judged)) / len(texts)


def validate(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    selector: Grader,
    config: GenerationConfig,
    *,
    step: int,
    seed: int,
    batch_size: int,
    micro_batch_size: int,
    capabilities: Capabilities | None = None,
    world: World,
) -> Validation:
    """Answers `prompts`, with the same random numbers at every step, and judges the answers.

    `batch_size` answers are sampled together; of `micro_batch_size` the logits, which have the vocabulary as an axis,
    are in memory together.
    """

    def answered(rows: list[int]) -> Experience:
        responses = sample_responses(
            model,
            tokenizer,
            [prompts[i] for i in rows],
            config,
            seed=seed,
            names=("validation",),
            rows=rows,
            batch_size=batch_size,
            capabilities=capabilities,
        )
        measured = measure(
            model,
            None,
            responses,
            config,
            eos_token_id=end_token_ids(model, tokenizer),
            micro_batch_size=micro_batch_size,
        )
        return Experience(responses=responses, measured=measured, rewarded=[], graded=None)

    answers = gathered(world, len(prompts), answered)
    texts = [r.text for r in answers.responses]
    toxicity, unscored_share = json.loads(world.from_main(lambda: json.dumps(_judged(selector, texts))))
    return Validation(
        step=step,
        toxicity=toxicity,
        kl_nats_per_sequence=answers.measured.kl_nats_per_sequence,
        base_perplexity=answers.measured.base_perplexity,
        empty_share=sum(map(is_blank, texts)) / len(texts),
        unscored_share=unscored_share,
    )
