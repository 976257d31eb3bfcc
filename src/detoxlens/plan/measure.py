"""Speed of this machine at a model's shape: a few passes through a random-weight model, a second or two each.

A deep model is not built: its times are those of a few layers and of some more, extended in a line. What is measured
with few tokens is scaled by tokens. Nothing is loaded but the shape.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from detoxlens.params.lora import LoraConfig
from detoxlens.params.section import Autocast

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

SHALLOW = 6
"""Up to so many layers the model is built as it is."""
SMALL_LAYER = 5_000_000
"""Parameters of a layer up to which batches of the real size are timed."""
SECONDS_EACH = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Seconds, at the model's full depth."""

    train_all: float
    """Per token, forward and backward with gradients of every weight."""
    train_lora: float
    """Per token, forward and backward with gradients of the adapter alone."""
    forward: float
    """Per token."""
    decode_step: float
    """Per generated position of a batch, whatever its size."""
    decode_row: float
    """Per generated position and row, on top."""
    attribute: float
    """Per (generated token, token of its prefix)."""
    attribute_float32: float
    """The same with the weights in float32, to which the stage `attribute` compares fewer bits."""
    train_lora_autocast: float
    """`train_lora` with products in bfloat16 (`sft.autocast`)."""
    forward_autocast: float
    """`forward` likewise."""

    def training(self, autocast: Autocast) -> tuple[float, float]:
        """`train_lora` and `forward` under `sft.autocast` or one like it."""
        if autocast:
            return self.train_lora_autocast, self.forward_autocast
        return self.train_lora, self.forward


def measure_speeds(config: PretrainedConfig, lora: LoraConfig, *, device: str, dtype: str) -> Speeds:
    """The speeds of a model of this shape."""
    depth = config.num_hidden_layers
    one, two = (_num_weights(build(config, layers, device="meta", dtype=dtype)) for layers in (1, 2))
    layer, output = two - one, config.vocab_size * config.hidden_size
    small = layer <= SMALL_LAYER
    if depth <= SHALLOW:
        return _at_depth(config, depth, lora, small=small, device=device, dtype=dtype)
    few, more = (2, SHALLOW) if small else (1, 2)
    first, second = (_at_depth(config, n, lora, small=small, device=device, dtype=dtype) for n in (few, more))

    def extended(name: str) -> float:
        shallow, deeper = getattr(first, name), getattr(second, name)
        # Noise can make the further layers look free; one costs at least half of what its share of the weights says.
        least = shallow * layer / (few * layer + output) / 2
        return shallow + (depth - few) * max((deeper - shallow) / (more - few), least)

    return Speeds(**{field.name: extended(field.name) for field in fields(Speeds)})


def build(config: PretrainedConfig, num_layers: int, *, device: str, dtype: str) -> nn.Module:
    """A random-weight model of the config's shape with so many layers."""
    import torch
    from transformers import AutoModelForCausalLM

    shape = copy.deepcopy(config)
    shape.num_hidden_layers = num_layers
    if getattr(shape, "layer_types", None):
        shape.layer_types = shape.layer_types[:num_layers]
    with torch.device("meta"):  # without memory: initialising billions of weights takes longer than timing them
        network = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype)).eval()
    if device == "meta":
        return network
    network = network.to_empty(device=device)
    values = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            flat = tensor.detach().view(-1)
            for start in range(0, len(flat), len(values)):
                flat[start : start + len(values)] = values[: len(flat) - start]
    return network


def _num_weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _at_depth(
    config: PretrainedConfig, num_layers: int, lora: LoraConfig, *, small: bool, device: str, dtype: str
) -> Speeds:
    import torch

    from detoxlens.attribution.api import attribute
    from detoxlens.models.capabilities import examine
    from detoxlens.models.generation import sample_batch
    from detoxlens.models.lora import add_adapter
    from detoxlens.params.generation import GenerationConfig

    network = build(config, num_layers, device=device, dtype=dtype)
    batch, seq, rows, steps = (16, 64, 64, 6) if small or device != "cpu" else (1, 32, 2, 1)
    ids = torch.randint(2, config.vocab_size, (batch, seq), device=device)

    def train() -> Callable[[], Any]:
        optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6)

        def step() -> None:
            network.train()
            network(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    able = examine(network, pad_token_id=1)  # once, outside of what is timed

    def decode_seconds(num_rows: int) -> float:
        """Of one generated position: what `steps` further ones take."""

        def decode(num_new: int) -> Callable[[], Any]:
            decoding = GenerationConfig(
                max_new_tokens=num_new,
                min_new_tokens=num_new,
                temperature=1.0,
                top_k=50,
                top_p=0.9,
                no_repeat_ngram_size=0,
                num_samples=1,
                batch_size=num_rows,
            )
            return lambda: sample_batch(
                network,
                [tuple(range(2, 18))] * num_rows,
                config=decoding,
                seeds=range(num_rows),
                eos_token_id=0,
                pad_token_id=1,
                capabilities=able,
            )

        return max(1e-6, _seconds(decode(1 + steps), device) - _seconds(decode(1), device)) / steps

    train_all = _seconds(train(), device) / ids.numel() if small else float("nan")
    network.requires_grad_(False)

    @torch.no_grad()
    def forward() -> None:
        network.eval()(input_ids=ids)

    forward_seconds = _seconds(forward, device) / ids.numel()
    short = torch.autocast(device.partition(":")[0], torch.bfloat16)  # as a decorator too
    forward_autocast = _seconds(short(forward), device) / ids.numel()
    one, many = decode_seconds(1), decode_seconds(rows)
    num_texts, prompt, generated = (8, 16, 10) if small or device != "cpu" else (1, 16, 1)
    prompts = [tuple(range(2, 2 + prompt))] * num_texts
    completions = [tuple(range(2, 2 + generated))] * num_texts
    pairs = num_texts * sum(range(prompt, prompt + generated))

    def attribute_seconds() -> float:
        return _seconds(lambda: attribute(network, prompt_ids=prompts, completion_ids=completions), device) / pairs

    attribution = exact = attribute_seconds()
    if dtype != "float32":
        network.float()
        exact = attribute_seconds()
        network.to(getattr(torch, dtype))
    network = add_adapter(network, lora)
    train_lora = _seconds(train(), device) / ids.numel()
    train_autocast = _seconds(short(train()), device) / ids.numel()
    return Speeds(
        train_all=train_all,
        train_lora=train_lora,
        forward=forward_seconds,
        decode_step=one,
        decode_row=max(0.0, (many - one) / (rows - 1)),
        attribute=attribution,
        attribute_float32=exact,
        train_lora_autocast=train_autocast,
        forward_autocast=forward_autocast,
    )


def _seconds(work: Callable[[], Any], device: str) -> float:
    """The median of the runs that fit into `SECONDS_EACH`, one at least, after an untimed one where that is short."""
    import statistics

    import torch

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - started

    first = once()
    if first > SECONDS_EACH:
        return first
    times: list[float] = []
    while sum(times) < SECONDS_EACH:
        times.append(once())
    return statistics.median(times)
