"""The base class of PPO, RLOO and GRPO: what they are given, how an adapter is judged, what they leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from peft import PeftModel

from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import examine
from detoxlens.models.forward import evaluating
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.rl.checkpoint import TrainingState, load_adapter_state
from detoxlens.rl.rewards import Grader, Reward, RewardedResponse, permuted
from detoxlens.rl.validation import validate
from detoxlens.rl.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, float | int]
"""One row of a training's history: `step` and group/quantity -> number."""
Prompts = Sequence[Sequence[int]]
"""Token ids, prompt by prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoResult:
    """What `train` leaves behind beside the adapter in the model."""

    history: list[Row]
    """One row per PPO step; row 0 is the validation before training."""
    kept_step: int
    """PPO steps that the kept adapter has seen."""
    stop_reason: str | None
    """Why training ended before `num_steps`; None if it did not."""


@dataclass(eq=False)
class PolicyTrainer:
    """What a trainer of a policy is given.

    Args:
        model: any causal language model with a trainable LoRA adapter; trained in place.
        tokenizer: the policy's; has an end-of-sequence and a padding token.
        reward: texts -> numbers, higher is better; sees the responses' text only.
        config: see `PpoConfig`.
        decoding: how responses are sampled, in training and validation.
        seed: of prompt order, sampling and minibatches.
        grader: texts -> toxicity, not the reward's classifier: logged at every step so that reward hacking shows.
        selector: texts -> toxicity; judges the validation prompts. Without it the last adapter is kept.
        placebo_kl_nats: trains a placebo: the rewards of each batch are permuted, training ends at the first
            validation whose KL per sequence reaches this, and the adapter nearest to it is kept.

    Raises:
        UserError: the model has no adapter to train, or decoding leaves nothing to chance.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    reward: Reward
    _: KW_ONLY
    config: PpoConfig
    decoding: GenerationConfig
    seed: int
    grader: Grader | None = None
    selector: Grader | None = None
    placebo_kl_nats: float | None = None

    def __post_init__(self) -> None:
        _check_policy(self.model, self.decoding)
        self.capabilities = examine(self.model, pad_token_id=self.tokenizer.pad_token_id)
        name = type(self.model.get_base_model()).__name__
        self.capabilities.warn_of_slow_sampling(name)
        if not self.capabilities.head_selects:
            raise UserError(
                f"PPO's value function reads the input of the output layer, and {name} has no output layer that takes "
                "some positions alone; fine-tune it (kind: sft), or choose another model."
            )

    def judge(self, state: TrainingState, prompts: Prompts, row: Row, world: World) -> None:
        """Validates the adapter as it is, adds the verdict to `row`, and keeps a copy of it if it is the best."""
        if self.selector is None or not prompts:
            return
        with evaluating(self.model):
            verdict = validate(
                self.model,
                self.tokenizer,
                prompts,
                self.selector,
                self.decoding,
                step=state.step,
                seed=self.seed,
                batch_size=self.config.validation.batch_size,
                micro_batch_size=self.config.micro_batch_size,
                capabilities=self.capabilities,
                world=world,
            )
        row |= verdict.metrics()
        budget, target = self.config.kl.budget_nats_per_sequence, self.placebo_kl_nats
        state.keep_if_best(verdict, self.model, kl_budget=budget, kl_target=target)
        if target is not None and verdict.kl_nats_per_sequence >= target:
            state.stop_reason = (
                f"step {state.step}: KL {verdict.kl_nats_per_sequence:.2f} nats per sequence on validation prompts, "
                f"as far as the placebo is to go ({target:.2f})"
            )

    def rewarded(self, batch: Sequence[RewardedResponse], *, step: int) -> Sequence[RewardedResponse]:
        """What the batch is rewarded with: its own rewards, or, for a placebo, those of others in it."""
        return batch if self.placebo_kl_nats is None else permuted(batch, seed=self.seed, step=step)

    def finish(self, state: TrainingState) -> PpoResult:
        """Puts the best adapter into the model; without a validation the last one stays."""
        load_adapter_state(self.model, state.best_adapter)
        return PpoResult(
            history=state.history,
            kept_step=state.step if state.best is None else state.best.step,
            stop_reason=state.stop_reason,
        )


def _check_policy(model: PeftModel, decoding: GenerationConfig) -> None:
    if not isinstance(model, PeftModel) or not any(p.requires_grad for p in model.parameters()):
        raise UserError(
            f"PPO trains a LoRA adapter and got {type(model).__name__} without trainable adapter weights; wrap the "
            f"model with peft.get_peft_model, or load its adapter with is_trainable=True."
        )
    if decoding.temperature == 0:
        raise UserError(
            "generation.temperature=0 always gives the same response, which teaches PPO nothing; set it above 0."
        )
