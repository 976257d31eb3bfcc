"""The arms, and one training of one of them with its looks at validation prompts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.records import Dialogue, Prompt
from detoxlens.common.seeding import fix_global_state
from detoxlens.data.replies import stops_of
from detoxlens.data.templates import encode_prompt, turn_end_ids
from detoxlens.models.end_tokens import set_end_tokens
from detoxlens.models.forward import evaluating
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.lora import add_adapter
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.sft import SftConfig
from detoxlens.regularization.toxic_tokens import judge_of
from detoxlens.rl.validation import validate
from detoxlens.rl.world import World
from detoxlens.scorers import make_scorer
from detoxlens.sft.regularized import marker
from detoxlens.sft.train import Example, encode_and_count, encode_examples, fine_tune

if TYPE_CHECKING:
    from peft import PeftModel

PLAIN = "plain"
MODEL = "tiny-neox"
Look = dict[str, float]
"""step, toxicity, kl_nats_per_sequence, base_perplexity, empty_share."""


def arms_of(kinds: Sequence[str], weight: float, num_examples: int) -> dict[str, dict[str, Any]]:
    """Name of an arm -> its `sft.regularizer`. The plain one measures the first kind's quantity."""
    found: dict[str, dict[str, Any]] = {PLAIN: {"kind": kinds[0], "weight": 0.0, "num_examples": num_examples}}
    for kind in kinds:
        own = {"kind": kind, "num_examples": num_examples}
        found |= {
            f"{kind}:lower": own | {"weight": weight},
            f"{kind}:raise": own | {"weight": -weight},
            f"{kind}:placebo": own | {"weight": weight, "columns": "shuffled"},
        }
    return found


class Bench:
    """One base model, one set of dialogues and validation prompts, and trainings on them."""

    def __init__(self, root: Path, params: Params, *, num_steps: int, batch_size: int, look_every: int):
        self.root, self.params, self.look_every = root, params, look_every
        layout = Layout(root)
        self.ref, self.spec = read_model_ref(layout.adapter(MODEL, "it")), params.model(MODEL)
        self.tokenizer = load_tokenizer(root, self.ref)
        dialogues = read_rows(layout.dialogues, Dialogue)
        self.train_dialogues = [d for d in dialogues if d.split == "train"]
        self.val = [d for d in dialogues if d.split == "val"][:1]
        self.sft = params.section("sft", SftConfig, model=MODEL).model_dump() | {
            "num_epochs": num_steps * batch_size / len(self.train_dialogues),
            "batch_size": batch_size,
            "eval_every": num_steps,
        }
        decoding = params.section("generation", GenerationConfig, model=MODEL)
        stop = stops_of(decoding, self.tokenizer, self.spec.template)
        self.decoding = decoding.model_copy(update={"stop": stop})
        prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split == "val" and "p50" in p.filters]
        template = self.spec.template
        self.prompts = [encode_prompt(self.tokenizer, template, [p.text], evaluation=True).ids for p in prompts]
        self.scorer = make_scorer("profanity_check", root=root)
        self.encoded = self.encode(words=True)

    def encode(self, *, words: bool) -> list[Example]:
        """The training examples with their marks; without `words` none of theirs is toxic."""
        mark = marker(self.tokenizer, self.spec.template, judge_of(self.scorer, section="sft") if words else None)
        config = self._config({})
        return encode_and_count(self.train_dialogues, self.tokenizer, self.spec.template, config, mark=mark)[0]

    def _config(self, regularizer: Mapping[str, Any]) -> SftConfig:
        return SftConfig.model_validate(self.sft | {"regularizer": regularizer})

    def run(self, regularizer: Mapping[str, Any], *, seed: int) -> tuple[list[Look], list[float]]:
        """Trains one arm with one seed: its looks, and the penalised quantity along the training."""
        looks: list[Look] = []

        def look(model: PeftModel, step: int) -> None:
            if step % self.look_every:
                return
            with evaluating(model):
                verdict = validate(
                    model,
                    self.tokenizer,
                    self.prompts,
                    lambda texts: [s.toxicity for s in self.scorer.score(texts)],
                    self.decoding,
                    step=step,
                    seed=seed,
                    batch_size=len(self.prompts),
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
        fix_global_state(seed, self.params.run.num_threads)
        model = add_adapter(
            load_model(self.root, self.ref, self.spec, device="cpu"),
            self.params.section("lora", LoraConfig, model=MODEL),
        )
        set_end_tokens(model, self.tokenizer, turn_end_ids(self.tokenizer, self.spec.template))
        config = self._config(regularizer)
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
