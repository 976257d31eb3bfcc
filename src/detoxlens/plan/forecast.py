"""What each stage will cost, from counts of tokens and rows and from measured speeds. Pure.

Letters: P prompt tokens, G generated tokens, N rows. A factor of two is what to expect of the hours: lengths are means,
batches are taken as full, and a machine that does other things is slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from detoxlens.attribution.config import AttributionConfig
from detoxlens.models.config import GenerationConfig
from detoxlens.models.tiny import TinyConfig
from detoxlens.plan.measure import Speeds
from detoxlens.rl.config import PpoConfig
from detoxlens.sft.config import SftConfig
from detoxlens.sft.train import num_steps

REMOTE_QUERIES_PER_SECOND = {"perspective": (1, 1), "openai_moderation": (32, 1)}
"""Scorer -> texts per query, queries per second."""
TRAINER_STEP_SECONDS = 0.02
"""Of TRL's trainer around an optimizer step."""
SCORED_TEXTS_PER_SECOND = 4000.0
"""Of `profanity_check` on one core."""
HF_SCORER_PARAMETERS = 1.25e8
"""Of a classifier as large as RoBERTa-base, which `hf:` scorers are taken to be."""
REPORT_SECONDS, PREPARE_SECONDS = 5.0, 1.0
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much there is to do for one model."""

    num_rows: int
    """Completions per variant: prompts times samples."""
    prompt_tokens: float
    generated_tokens: float
    """Mean; `generation.max_new_tokens` where nothing was generated yet."""
    num_attributed: int
    """Completions attributed per variant, of its own."""
    num_examples: int
    """Of fine-tuning."""
    example_tokens: float
    base_example_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes that memory and disk depend on."""

    num_parameters: float
    num_adapter_parameters: float
    hidden: int
    num_layers: int
    vocab: int
    dtype: str
    bits: int | None
    """Of quantised weights."""

    @property
    def weight_bytes(self) -> float:
        return self.num_parameters * (self.bits / 8 if self.bits else BYTES[self.dtype])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of all executions of one stage for one model."""

    stage: str
    num_runs: int
    hours: float
    memory_gib: float
    disk_gib: float = 0.0
    num_api_calls: int = 0


def base_cost(tiny: TinyConfig | None, counts: Counts, speeds: Speeds, shape: Shape, start: float) -> Cost:
    """Training of an embedded model, or the look-up of another, whose weights the hub's cache will hold."""
    seconds = start
    memory = 0.0
    if tiny is not None:
        seconds += tiny.num_steps * tiny.batch_size * counts.base_example_tokens * speeds.train_all
        memory = 16 * shape.num_parameters + _activations(shape, tiny.batch_size * counts.base_example_tokens, False)
    return Cost(
        stage="base", num_runs=1, hours=seconds / 3600, memory_gib=memory / GIB, disk_gib=shape.weight_bytes / GIB
    )


def finetune_cost(sft: SftConfig, counts: Counts, speeds: Speeds, shape: Shape, start: float, num_runs: int) -> Cost:
    """Steps of LoRA training, and a validation on a tenth of the data every so often."""
    steps = num_steps(counts.num_examples, sft)
    tokens = steps * sft.batch_size * sft.gradient_accumulation_steps * counts.example_tokens
    validation = steps // sft.eval_every * counts.num_examples / 10 * counts.example_tokens
    recompute = 4 / 3 if sft.gradient_checkpointing else 1.0
    seconds = start + recompute * tokens * speeds.train_lora + validation * speeds.forward
    seconds += steps * TRAINER_STEP_SECONDS
    live = sft.batch_size * min(sft.max_length, 2 * counts.example_tokens)
    return _trained("finetune", seconds, live, shape, sft.gradient_checkpointing, num_runs)


def rl_cost(
    ppo: PpoConfig, config: GenerationConfig, counts: Counts, speeds: Speeds, shape: Shape, start: float, num_runs: int
) -> Cost:
    """Per step: a rollout, its likelihoods under policy and base, `num_epochs` passes; and validations."""
    seq = counts.prompt_tokens + counts.generated_tokens
    tokens = ppo.rollout_batch_size * seq
    recompute = 4 / 3 if ppo.gradient_checkpointing else 1.0
    step = _decode(1, ppo.rollout_batch_size, config, counts, speeds) + 3 * tokens * speeds.forward
    step += recompute * ppo.num_epochs * tokens * speeds.train_lora
    validation = _decode(1, ppo.validation.num_prompts, config, counts, speeds)
    validation += 2 * ppo.validation.num_prompts * seq * speeds.forward
    seconds = start + ppo.num_steps * step + (2 + ppo.num_steps // ppo.validation.every) * validation
    live = ppo.micro_batch_size * (min(ppo.max_prompt_tokens, 2 * counts.prompt_tokens) + config.max_new_tokens)
    return _trained("rl", seconds, live, shape, ppo.gradient_checkpointing, num_runs)


def generate_cost(
    config: GenerationConfig, counts: Counts, speeds: Speeds, shape: Shape, start: float, num_runs: int, batch: int
) -> Cost:
    num_batches = math.ceil(counts.num_rows / batch)
    seconds = start + _decode(num_batches, counts.num_rows, config, counts, speeds)
    seconds += counts.num_rows * counts.prompt_tokens * speeds.forward
    cache = 2 * shape.num_layers * shape.hidden * (counts.prompt_tokens + config.max_new_tokens) * BYTES[shape.dtype]
    memory = shape.weight_bytes + batch * (cache + 32 * shape.vocab)
    return _repeated("generate", seconds, memory, num_runs)


def score_cost(scorers: list[str], counts: Counts, speeds: Speeds, shape: Shape, start: float, num_runs: int) -> Cost:
    """Likelihoods under `it`, and each scorer; a remote one is asked once per text, at its own pace."""
    seconds = start + counts.num_rows * (counts.prompt_tokens + counts.generated_tokens) * speeds.forward
    num_calls = 0
    for name in scorers:
        kind = name.partition(":")[0]
        if kind in REMOTE_QUERIES_PER_SECOND:
            per_query, per_second = REMOTE_QUERIES_PER_SECOND[kind]
            calls = math.ceil(counts.num_rows / per_query)
            num_calls += calls
            seconds += calls / per_second
        elif kind == "hf":
            share = HF_SCORER_PARAMETERS / shape.num_parameters
            seconds += counts.num_rows * counts.generated_tokens * speeds.forward * share
        elif kind == "profanity_check":
            seconds += counts.num_rows / SCORED_TEXTS_PER_SECOND
    memory = shape.weight_bytes + _activations(shape, 16 * (counts.prompt_tokens + counts.generated_tokens), True)
    return _repeated("score", seconds, memory, num_runs, num_api_calls=num_calls)


def attribute_cost(
    config: AttributionConfig, counts: Counts, speeds: Speeds, shape: Shape, start: float, num_runs: int
) -> Cost:
    """A variant's own texts and those of `it` (once for `it` itself), and the tests of faithfulness.

    Scores are stored as eight bytes per (generated token, token before it), compressed to about a third.
    """
    p, g = counts.prompt_tokens, counts.generated_tokens
    pairs = g * p + g * (g - 1) / 2
    test = config.faithfulness
    tested = min(test.num_sequences, counts.num_attributed)
    one = counts.num_attributed * pairs * speeds.attribute * (config.num_path_steps if _is_path(config) else 1)
    checks = tested * pairs * speeds.attribute
    checks += tested * test.steps_per_sequence * 2 * (1 + test.num_random) * (p + g) * speeds.forward
    seconds = num_runs * (start + checks) + (2 * num_runs - 1) * one
    memory = shape.weight_bytes + 2 * _activations(shape, p + g, False)
    disk = 2 * num_runs * counts.num_attributed * pairs * 8 / 3
    return Cost(
        stage="attribute", num_runs=num_runs, hours=seconds / 3600, memory_gib=memory / GIB, disk_gib=disk / GIB
    )


def _is_path(config: AttributionConfig) -> bool:
    return config.method == "integrated_gradients"


def _decode(num_batches: int, num_rows: int, config: GenerationConfig, counts: Counts, speeds: Speeds) -> float:
    """Seconds: a batch goes on until its longest row ends, a row until it ends itself."""
    longest = min(config.max_new_tokens, 2 * counts.generated_tokens)
    return num_batches * longest * speeds.decode_step + num_rows * counts.generated_tokens * speeds.decode_row


def _activations(shape: Shape, num_tokens: float, recomputed: bool) -> float:
    """Bytes: about 34 numbers of the width per layer and token (arXiv 2205.05198), one when recomputed; the logits."""
    kept = 1 if recomputed else 34
    return num_tokens * (shape.num_layers * shape.hidden * kept * 2 + 3 * 4 * shape.vocab)


def _trained(stage: str, seconds: float, live: float, shape: Shape, recomputed: bool, num_runs: int) -> Cost:
    memory = shape.weight_bytes + 16 * shape.num_adapter_parameters + _activations(shape, live, recomputed)
    disk = num_runs * 4 * shape.num_adapter_parameters
    return _repeated(stage, seconds, memory, num_runs, disk_bytes=disk)


def _repeated(
    stage: str, seconds: float, memory: float, num_runs: int, *, disk_bytes: float = 0.0, num_api_calls: int = 0
) -> Cost:
    return Cost(
        stage=stage,
        num_runs=num_runs,
        hours=num_runs * seconds / 3600,
        memory_gib=memory / GIB,
        disk_gib=disk_bytes / GIB,
        num_api_calls=num_runs * num_api_calls,
    )
