"""Params that have no effect on an algorithm, and why: a sweep over one would find only noise, an override mislead.

The algorithms of one kind read the same sections, none of them all of it. What is set for every variant alike may
stay; what a search space or a variant's own overrides name must count.
"""

from __future__ import annotations

from detoxlens.params.kinds import KINDS

_DROPOUT = {"lora.dropout": "training by reward runs without dropout, so that what was sampled is what is learnt from"}
_NO_DROPOUT = {"lora.dropout": "preference tuning runs without dropout, so that it begins at the reference"}
_NO_VALUES = "there is no value function; a response is measured against the others to the same prompt"
_WHOLE_RESPONSES = "the reward is of the whole response, not of its tokens"
_FIXED_KL = "TRL keeps ppo.kl.coef fixed"
_PENALTY = ("kind", "weight", "columns", "num_examples", "num_positions", "scorer")
_GROUPS = _DROPOUT | {
    "ppo.value_learning_rate": _NO_VALUES,
    "ppo.value_clip_range": _NO_VALUES,
    "ppo.value_coef": _NO_VALUES,
    "ppo.value_function": _NO_VALUES,
    "ppo.value_gradient_to_backbone": _NO_VALUES,
    "ppo.gamma": _WHOLE_RESPONSES,
    "ppo.lam": _WHOLE_RESPONSES,
    "ppo.whiten_rewards": _WHOLE_RESPONSES,
    "ppo.entropy_coef": "TRL's loss has no entropy bonus",
    **{f"ppo.regularizer.{key}": "TRL's loss has no penalty on the use of the prompt" for key in _PENALTY},
    "ppo.kl.control": _FIXED_KL,
    "ppo.kl.target_nats_per_sequence": _FIXED_KL,
    "ppo.kl.horizon": _FIXED_KL,
}
UNREAD: dict[str, dict[str, str]] = {
    "ppo": _DROPOUT | {"ppo.num_generations": "every response is to a prompt of its own"},
    "rloo": _GROUPS | {"ppo.kl.estimator": "TRL's RLOO has k1"},
    "grpo": _GROUPS
    | {
        "ppo.kl.estimator": "TRL's GRPO has k3",
        "ppo.whiten_advantages": "GRPO always divides by the deviation within a group",
    },
    "dpo": _NO_DROPOUT,
    "kto": _NO_DROPOUT,
}
"""Algorithm -> `section.key` -> why it has no effect."""


def why_unread(algorithm: str, key: str) -> str | None:
    """`there is no value function; ... It is read by ppo.`, or None if the key counts."""
    if key not in UNREAD.get(algorithm, {}):
        return None
    name, kind = next((name, kind) for name, kind in KINDS.items() if algorithm in kind.algorithms)
    readers = [other for other in kind.algorithms if key not in UNREAD[other]]
    return f"{UNREAD[algorithm][key]}. " + (
        f"It is read by {' and '.join(readers)}." if readers else f"No variant of kind {name} reads it."
    )
