"""Fine-tuning of one arm, with looks at the validation prompts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.importance.bench import MODEL, Bench, Look, Size
from detoxlens.models.forward import evaluating
from detoxlens.params.load import Params
from detoxlens.params.sft import SftConfig
from detoxlens.regularization.toxic_tokens import judge_of
from detoxlens.rl.validation import validate
from detoxlens.rl.world import World
from detoxlens.sft.regularized import marker
from detoxlens.sft.train import Example, encode_and_count, encode_examples, fine_tune

if TYPE_CHECKING:
    from peft import PeftModel


class Sft(Bench):
    """Trainings on the replies of the training dialogues."""

    def __init__(self, root: Path, params: Params, size: Size, *, words: bool):
        super().__init__(root, params, size, words=words)
        self.train_dialogues, self.val = self.dialogues("train"), self.dialogues("val")[:1]
        self.settings = params.section("sft", SftConfig, model=MODEL).model_dump() | {
            "num_epochs": size.num_steps * size.batch_size / len(self.train_dialogues),
            "batch_size": size.batch_size,
            "eval_every": size.num_steps,
        }
        self.encoded = self.encode(words=words)

    def encode(self, *, words: bool) -> list[Example]:
        """The training examples with their marks; without `words` none of theirs is toxic."""
        mark = marker(self.tokenizer, self.spec.template, judge_of(self.scorer, section="sft") if words else None)
        config = self._config({})
        return encode_and_count(self.train_dialogues, self.tokenizer, self.spec.template, config, mark=mark)[0]

    def run(self, regularizer: Mapping[str, Any], *, seed: int) -> tuple[list[Look], list[float]]:
        looks: list[Look] = []

        def look(model: PeftModel, step: int) -> None:
            if step % self.size.look_every:
                return
            with evaluating(model):
                verdict = validate(
                    model,
                    self.tokenizer,
                    self.prompts,
                    self.toxicity,
                    self.decoding,
                    step=step,
                    seed=seed,
                    batch_size=len(self.prompts),
                    micro_batch_size=len(self.prompts),
                    world=World(device="cpu"),
                )
            looks.append(asdict(verdict))

        history = self.train(regularizer, seed=seed, on_step=look)
        key = f"sft/{regularizer['kind']}"
        return looks, [row[key] for row in history if key in row]

    def train(
        self, regularizer: Mapping[str, Any], *, seed: int, on_step: Callable[[PeftModel, int], None]
    ) -> list[dict[str, float]]:
        """One training of one arm: its history. `on_step` is given the model and the steps done, 0 first."""
        model, config = self.fresh_model(seed), self._config(regularizer)
        with tempfile.TemporaryDirectory() as folder:
            return fine_tune(
                model,
                self.tokenizer,
                train=self.encoded,
                validation=encode_examples(self.val, self.tokenizer, self.spec.template, config),
                config=config,
                seed=seed,
                checkpoints=Path(folder),
                on_step=lambda _, step, __: on_step(model, step),
            )

    def _config(self, regularizer: Mapping[str, Any]) -> SftConfig:
        return SftConfig.model_validate(self.settings | {"regularizer": regularizer})
