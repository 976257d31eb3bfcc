"""Rewards: any callable from texts to numbers, higher is better. A reward sees the response's text and nothing else.

It has its own tokenizer and its own batch size, so any classifier can be the judge of any policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from detoxlens.common.errors import UserError
from detoxlens.common.records import FinishReason
from detoxlens.common.seeding import numpy_rng
from detoxlens.common.text import as_read, is_blank
from detoxlens.params.ppo import RewardScale

if TYPE_CHECKING:
    from detoxlens.models.classifier import TextClassifier

Reward = Callable[[list[str]], list[float]]
"""One finite number per text, in order."""
Grader = Callable[[list[str]], list[float | None]]
"""Toxicity in 0..1 per text, in order; None where it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardedResponse:
    """RewardedResponse(reward=0.97, status="ok")"""

    reward: float
    status: Literal["ok", "empty"]
    """`empty`: no text to see, so the reward is `ppo.empty_response_reward` and no reward function was asked."""
    truncated: bool = False
    """The reward function read only the text's beginning."""


class NonToxicity:
    """1 - P(toxic label) by a text classifier, in 0..1; or the log-odds of that, in nats.

    Which label that is and how its probability comes about is read from the classifier's own config
    (`TextClassifier.label`, `.activation`): 1 - P(the wrong label) would train hate.
    """

    def __init__(self, classifier: TextClassifier, *, normalize: bool = True, scale: RewardScale = "probability"):
        self.classifier, self.normalize, self.scale = classifier, normalize, scale

    def __call__(self, texts: list[str]) -> list[float]:
        seen = [self._seen(text) for text in texts]
        if self.scale == "log_odds":
            return [-odds for odds in self.classifier.log_odds(seen)]
        return [1 - p for p in self.classifier.prob(seen)]

    def truncates(self, text: str) -> bool:
        """Does it read only the beginning of `text`?"""
        return self.classifier.truncates(self._seen(text))

    def _seen(self, text: str) -> str:
        """As the grader reads it: `toxicity.normalize`."""
        return as_read(text) if self.normalize else text

    def __str__(self) -> str:
        measure = "1 - P({})" if self.scale == "probability" else "log-odds of 1 - P({})"
        judge = self.classifier
        return f"{measure.format(judge.label)}, {judge.activation}, weights {judge.version}"

    def description(self) -> str:
        """For the log: also which of the classifier's outputs that label is, as its own config says."""
        labels = ", ".join(f"{i}: {name}" for i, name in sorted(self.classifier.model.config.id2label.items()))
        return f"{self}; output {self.classifier.label_index} of {{{labels}}}"


class WeightedSum:
    """sum_i weight_i * reward_i(text): `WeightedSum({non_toxic: 1.0, brevity: 0.1})`."""

    def __init__(self, weights: Mapping[Reward, float]):
        self.weights = dict(weights)

    def __call__(self, texts: list[str]) -> list[float]:
        parts = [[weight * r for r in reward(texts)] for reward, weight in self.weights.items()]
        return [math.fsum(values) for values in zip(*parts, strict=True)]

    def truncates(self, text: str) -> bool:
        """Does any of the rewards read only the beginning of `text`?"""
        return any(truncates(reward, text) for reward in self.weights)


def truncates(reward: Reward, text: str) -> bool:
    """Does the reward function read only the beginning of `text`? One that does not say so reads all of it."""
    reads_part = getattr(reward, "truncates", None)
    return reads_part is not None and reads_part(text)


def reward_responses(
    reward: Reward,
    texts: Sequence[str],
    finish_reasons: Sequence[FinishReason],
    *,
    step: int,
    empty_response_reward: float,
    missing_eos_penalty: float,
) -> list[RewardedResponse]:
    """The reward of each response; white space and invisible characters alone count as empty.

    Raises:
        UserError: the reward function raises, returns the wrong count, or a reward that is not a finite number. The
            message names the step and the offending text.
    """
    filled = [text for text in texts if not is_blank(text)]
    rewards = iter(call_checked(reward, filled, step=step) if filled else [])
    responses = []
    for text, finish in zip(texts, finish_reasons, strict=True):
        penalty = 0.0 if finish == "eos" else missing_eos_penalty
        if not is_blank(text):
            cut = truncates(reward, text)
            responses.append(RewardedResponse(reward=next(rewards) - penalty, status="ok", truncated=cut))
        else:
            responses.append(RewardedResponse(reward=empty_response_reward - penalty, status="empty"))
    return responses


def permuted(rewarded: Sequence[RewardedResponse], *, seed: int, step: int) -> list[RewardedResponse]:
    """The same responses, each with the reward of a random one among them: rewards that say nothing about responses."""
    order = numpy_rng(seed, "placebo", step).permutation(len(rewarded))
    return [replace(own, reward=rewarded[i].reward) for own, i in zip(rewarded, order.tolist(), strict=True)]


def check_not_all_empty(rewarded: Sequence[RewardedResponse], *, step: int) -> None:
    """Raises UserError if no response of the batch has any text."""
    if all(r.status == "empty" for r in rewarded):
        raise UserError(
            f"ppo step {step}: all {len(rewarded)} responses are empty, so there is nothing to reward. Raise "
            f"generation.min_new_tokens, or lower ppo.learning_rate if earlier steps still had text. The last "
            f"checkpoint is kept."
        )


def grade_responses(grader: Grader, texts: Sequence[str]) -> list[float | None]:
    """Each text's toxicity by the grader, which is not shown the empty ones: they have none."""
    filled = [text for text in texts if not is_blank(text)]
    graded = iter(grader(filled) if filled else [])
    return [None if is_blank(text) else next(graded) for text in texts]


def call_checked(reward: Reward, texts: list[str], *, step: int) -> list[float]:
    """`reward(texts)`, or an error that names the step and the text that the function stumbled over."""
    try:
        rewards = [float(r) for r in reward(texts)]
    except Exception as e:  # a user's function may raise anything; the error is passed on as the cause
        raise UserError(
            f"ppo step {step}: the reward function raised {type(e).__name__}: {e}. {_culprit(reward, texts)}"
        ) from e
    if len(rewards) != len(texts):
        raise UserError(
            f"ppo step {step}: the reward function returned {len(rewards)} rewards for {len(texts)} texts, the first "
            f"{texts[0]!r}; it must return one number per text, in order."
        )
    for text, value in zip(texts, rewards, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"ppo step {step}: the reward of the response {text!r} is {value}; rewards must be finite numbers. "
                f"The last checkpoint is kept: once the reward function is repaired, the same command continues."
            )
    return rewards


def _culprit(reward: Reward, texts: list[str]) -> str:
    """Which text alone makes the reward function raise."""
    for text in texts:
        try:
            reward([text])
        except Exception:  # the point is to find the text that makes it raise, whatever it raises
            return f"It does so for the response {text!r} alone."
    return f"It does so for all {len(texts)} texts together but for none alone; the first is {texts[0]!r}."
