"""What trainings of either method have in common: one base model, validation prompts, and what is seen of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.records import Dialogue, Prompt
from detoxlens.common.seeding import fix_global_state
from detoxlens.data.replies import stops_of
from detoxlens.data.templates import encode_prompt, turn_end_ids
from detoxlens.models.end_tokens import set_end_tokens
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.lora import add_adapter
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.scorers import make_scorer

if TYPE_CHECKING:
    from peft import PeftModel

MODEL = "tiny-neox"
Look = dict[str, float]
"""step, toxicity, kl_nats_per_sequence, base_perplexity, empty_share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Size(num_steps=24, batch_size=8, look_every=3, num_threads=1)"""

    num_steps: int
    batch_size: int
    """Dialogues of a step of fine-tuning, responses of a step of PPO."""
    look_every: int
    """Steps between looks at the validation prompts; before the first and after the last there is one."""
    num_threads: int
    """Of torch; the last digits of every number depend on it."""


class Bench(ABC):
    """Trainings of one method: `run` is one of them, with one arm's regularizer and one seed.

    Args:
        root: of the repository.
        params: its params.yaml.
        size: of each training.
        words: find the toxic words of the human turns, which takes seconds; `toxic_share` needs them.
    """

    def __init__(self, root: Path, params: Params, size: Size, *, words: bool):
        self.root, self.params, self.size = root, params, size
        self.layout, self.spec = Layout(root), params.model(MODEL)
        self.ref = read_model_ref(self.layout.adapter(MODEL, "it"))
        self.tokenizer = load_tokenizer(root, self.ref)
        decoding = params.section("generation", GenerationConfig, model=MODEL)
        stop = stops_of(decoding, self.tokenizer, self.spec.template)
        self.decoding = decoding.model_copy(update={"stop": stop})
        prompts = [p for p in read_rows(self.layout.prompts, Prompt) if p.split == "val" and "p50" in p.filters]
        template = self.spec.template
        self.prompts = [encode_prompt(self.tokenizer, template, [p.text], evaluation=True).ids for p in prompts]
        self.scorer = make_scorer("profanity_check", root=root)

    @abstractmethod
    def run(self, regularizer: Mapping[str, Any], *, seed: int) -> tuple[list[Look], list[float]]:
        """Trains one arm: its looks, and the penalised quantity along the training."""

    def dialogues(self, split: str) -> list[Dialogue]:
        """Those of the training or the validation split."""
        return [d for d in read_rows(self.layout.dialogues, Dialogue) if d.split == split]

    def fresh_model(self, seed: int) -> PeftModel:
        """The base model with an untrained adapter; the global generators are seeded before."""
        fix_global_state(seed, self.size.num_threads)
        model = add_adapter(
            load_model(self.root, self.ref, self.spec, device="cpu"),
            self.params.section("lora", LoraConfig, model=MODEL),
        )
        set_end_tokens(model, self.tokenizer, turn_end_ids(self.tokenizer, self.spec.template))
        return model

    def toxicity(self, texts: list[str]) -> list[float | None]:
        """By the scorer that looks judge with."""
        return [scored.toxicity for scored in self.scorer.score(texts)]
