"""CPU seconds of attribution, sampling and a step of fine-tuning, by tokens, width and depth of a random GPT-NeoX."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from benchmarks.cases import neox
from detoxlens.attribution.api import attribute
from detoxlens.models.generation import sample
from detoxlens.models.lora import add_adapter
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import load_params
from detoxlens.params.lora import LoraConfig

VOCAB, NUM_HEADS, BATCH = 2048, 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Shape(num_tokens=128, width=256, depth=4): of the text, half of it generated, and of the model."""

    num_tokens: int
    width: int
    depth: int


MIDDLE = Shape(num_tokens=128, width=256, depth=4)
SIZES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"num_tokens": (64, 128, 256), "width": (128, 256, 512), "depth": (2, 4, 8)}
)
"""What is varied, the rest as in `MIDDLE`."""


def shapes() -> Iterator[tuple[str, int, Shape]]:
    """(what is varied, its size, the shape)."""
    for name, sizes in SIZES.items():
        for size in sizes:
            yield name, size, replace(MIDDLE, **{name: size})


def work_of(root: Path, shape: Shape) -> dict[str, Callable[[], object]]:
    """Kind of work -> it, on a model and random tokens of this shape."""
    params = load_params(root / "params.yaml")
    model = neox(shape.width, shape.depth, NUM_HEADS, 4 * shape.width, VOCAB)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCAB - 1, (BATCH, shape.num_tokens), generator=generator)
    half = shape.num_tokens // 2
    text, prompts = ids[0].tolist(), ids[:, :half].tolist()
    decoding = params.section("generation", GenerationConfig).model_copy(
        update={"max_new_tokens": half, "min_new_tokens": half, "stop": ()}
    )
    trained = add_adapter(
        neox(shape.width, shape.depth, NUM_HEADS, 4 * shape.width, VOCAB), params.section("lora", LoraConfig)
    )
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        trained(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        "attribution": lambda: attribute(model, prompt_ids=[text[:half]], completion_ids=[text[half:]]),
        "generation": lambda: sample(
            model,
            prompts,
            config=decoding,
            seeds=range(BATCH),
            eos_token_id=VOCAB - 1,
            pad_token_id=VOCAB - 1,
            batch_size=BATCH,
        ),
        "fine-tuning step": step,
    }


def cpu_seconds(work: Callable[[], object], *, num_repetitions: int) -> float:
    """Median, after one that is not counted."""
    work()
    found = []
    for _ in range(num_repetitions):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return statistics.median(found)
