"""PPO of one arm; its own validation is the look at the validation prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.importance.bench import MODEL, Bench, Look, Size
from detoxlens.common.artifacts import read_model_ref
from detoxlens.data.templates import encode_prompt
from detoxlens.params.load import Params
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.reward_model import RewardModelConfig
from detoxlens.pipeline.stages.rl import hater_contexts
from detoxlens.regularization.toxic_tokens import judge_of
from detoxlens.rl.ppo import PPO
from detoxlens.rl.regularized import prompt_marks
from detoxlens.rl.rewards import NonToxicity
from detoxlens.rl.trainer import Row
from detoxlens.scorers.reward import reward_classifier

LOOK = {
    "toxicity": "ppo/val_toxicity",
    "kl_nats_per_sequence": "ppo/val_kl_nats_per_sequence",
    "base_perplexity": "ppo/val_base_perplexity",
    "empty_share": "ppo/val_empty_share",
}
"""Name in a look -> in PPO's history."""


class Ppo(Bench):
    """Trainings on the human turns of the training dialogues, rewarded by models/reward."""

    def __init__(self, root: Path, params: Params, size: Size, *, words: bool):
        super().__init__(root, params, size, words=words)
        settings = params.section("ppo", PpoConfig, model=MODEL).model_dump()
        self.settings = settings | {
            "num_steps": size.num_steps,
            "rollout_batch_size": size.batch_size,
            "minibatch_size": size.batch_size // 2,
            "validation": settings["validation"] | {"every": size.look_every, "batch_size": len(self.prompts)},
        }
        rewarding = params.section("reward_model", RewardModelConfig)
        judge = reward_classifier(root, read_model_ref(self.layout.reward_model), rewarding, "cpu")
        self.reward = NonToxicity(judge)
        template = self.spec.template
        contexts = hater_contexts(self.dialogues("train"), self.settings["max_context_turns"])
        self.contexts = [encode_prompt(self.tokenizer, template, turns).ids for turns in contexts]
        self.marks = prompt_marks(
            self.tokenizer, template, contexts, judge_of(self.scorer, section="ppo") if words else None
        )

    def run(self, regularizer: Mapping[str, Any], *, seed: int) -> tuple[list[Look], list[float]]:
        trainer = PPO(
            self.fresh_model(seed),
            self.tokenizer,
            self.reward,
            config=PpoConfig.model_validate(self.settings | {"regularizer": regularizer}),
            decoding=self.decoding,
            seed=seed,
            selector=self.toxicity,
            marks=self.marks,
        )
        history = trainer.train(self.contexts, validation_prompts=self.prompts).history
        key = f"ppo/{regularizer['kind']}"
        return looks_of(history), [row[key] for row in history if key in row]


def looks_of(history: Sequence[Row]) -> list[Look]:
    """The validations among the rows of PPO's history."""
    return [
        {"step": row["step"]} | {name: row[key] for name, key in LOOK.items()}
        for row in history
        if LOOK["toxicity"] in row
    ]
