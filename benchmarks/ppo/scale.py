"""On a GPU: seconds per PPO step at the shapes of the paper's models, the authors' batch of 64 responses of 70 tokens.

Random weights in bfloat16, the authors' LoRA, decoding and minibatches. Their logs (github.com/DanielSc4/RewardLM, an
A100) show 130 to 143 s of generation and 50 s of update per step, against which the speed-up is counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from rich.table import Table
from torch import nn

from benchmarks.cases import falcon, neox
from benchmarks.ppo.case import BOT, build_tokenizer, reward_of_text
from detoxlens.common.seeding import numpy_rng
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.ppo import KlConfig
from detoxlens.rl import PPO, PpoConfig

AUTHORS_SECONDS, SPEEDUP_TARGET = 130 + 50, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleCase:
    """One of the paper's models, and how it was trained."""

    name: str
    build: Callable[[], nn.Module]
    vocab: int
    targets: tuple[str, ...]
    minibatch_size: int
    top_k: int
    top_p: float
    temperature: float
    num_responses: int = 64
    num_prompt_tokens: int = 100
    num_new_tokens: int = 70
    lora_r: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """What a PPO step of one shape took."""

    shape: str
    num_responses: int
    num_prompt_tokens: int
    num_new_tokens: int
    generation_seconds: float
    """Median, sampling and decoding; the rest of the step is the update, with the passes before it."""
    update_seconds: float
    peak_memory_gib: float | None
    """On a GPU: most memory held, weights included."""
    speedup_over_authors: float
    target_speedup: float


def shapes() -> list[ScaleCase]:
    """RedPajama-INCITE-3B and Falcon-7B."""
    all_linear = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    return [
        ScaleCase(
            name="neox-3b",
            build=lambda: neox(2560, 32, 32, 10240, 50432, dtype=torch.bfloat16),
            vocab=50432,
            targets=("query_key_value",),
            minibatch_size=16,
            top_k=50,
            top_p=0.8,
            temperature=0.7,
        ),
        ScaleCase(
            name="falcon-7b",
            build=lambda: falcon(4544, 32, 71, 65024, dtype=torch.bfloat16),
            vocab=65024,
            targets=all_linear,
            minibatch_size=8,
            top_k=10,
            top_p=1.0,
            temperature=1.0,
        ),
    ]


def measure_scale() -> list[StepTime]:
    """Every shape on the GPU, one at a time."""
    return [measure_shape(shape, device="cuda") for shape in shapes()]


def measure_shape(shape: ScaleCase, *, device: str, num_steps: int = 3) -> StepTime:
    """Medians over `num_steps` PPO steps behind one that is not counted."""
    on_gpu = device.startswith("cuda")
    with torch.device(device):
        model = shape.build()
        lora = LoraConfig(
            r=shape.lora_r, lora_alpha=32, lora_dropout=0.05, target_modules=list(shape.targets), task_type="CAUSAL_LM"
        )
        policy = get_peft_model(model, lora)
    config = PpoConfig(
        num_steps=num_steps + 1,
        rollout_batch_size=shape.num_responses,
        minibatch_size=shape.minibatch_size,
        micro_batch_size=shape.minibatch_size,
        num_epochs=4,
        kl=KlConfig(control="adaptive", coef=0.2, explosion_nats_per_sequence=1e6),
    )
    decoding = GenerationConfig(
        max_new_tokens=shape.num_new_tokens,
        min_new_tokens=min(4, shape.num_new_tokens),
        top_k=shape.top_k,
        top_p=shape.top_p,
        temperature=shape.temperature,
        no_repeat_ngram_size=2,
        num_samples=1,
        batch_size=shape.num_responses,
    )
    words = numpy_rng(0, "bench ppo scale").integers(
        BOT + 1, shape.vocab, (shape.num_responses, shape.num_prompt_tokens)
    )
    sampled: list[float] = []
    ended = [time.perf_counter()]

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def reward(texts: list[str]) -> list[float]:
        sampled.append(clock())
        return [reward_of_text(text, 4) for text in texts]

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    ppo = PPO(policy, build_tokenizer(shape.vocab), reward, config=config, decoding=decoding, seed=0)
    ended[0] = clock()
    ppo.train(words.tolist(), on_step=lambda row: ended.append(clock()))
    generation = statistics.median(s - e for s, e in zip(sampled[1:], ended[1:-1], strict=True))
    update = statistics.median(e - s for s, e in zip(sampled[1:], ended[2:], strict=True))
    return StepTime(
        shape=shape.name,
        num_responses=shape.num_responses,
        num_prompt_tokens=shape.num_prompt_tokens,
        num_new_tokens=shape.num_new_tokens,
        generation_seconds=generation,
        update_seconds=update,
        peak_memory_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        speedup_over_authors=AUTHORS_SECONDS / (generation + update),
        target_speedup=SPEEDUP_TARGET,
    )


def scale_table(measured: Sequence[StepTime]) -> Table:
    """One row per shape."""
    table = Table(title=f"Seconds per PPO step; the authors' {AUTHORS_SECONDS}", title_justify="left")
    table.add_column("shape", no_wrap=True)
    for head in ("generation", "update", "GiB", "faster", "target"):
        table.add_column(head, justify="right", no_wrap=True)
    for m in measured:
        color = "green" if m.speedup_over_authors >= m.target_speedup else "red"
        memory = "" if m.peak_memory_gib is None else f"{m.peak_memory_gib:.1f}"
        table.add_row(
            m.shape,
            f"{m.generation_seconds:.2f}",
            f"{m.update_seconds:.2f}",
            memory,
            f"[{color}]{m.speedup_over_authors:.1f}x[/]",
            f"{m.target_speedup:g}x",
        )
    return table
