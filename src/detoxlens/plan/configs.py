"""The config of a declared model, from what this machine has: never from the hub, which a forecast should not need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout
from detoxlens.models import tiny
from detoxlens.models.gguf import find_gguf, is_gguf, read_config
from detoxlens.params.load import Params

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ASSUMED_LAYERS, ASSUMED_HEADS, ASSUMED_VOCAB = 32, 32, 50_432
"""Of a model of which only the number of parameters is known: a GPT-NeoX of RedPajama-3B's depth."""


def config_of(
    root: Path, params: Params, model: str, num_parameters: float | None
) -> tuple[PretrainedConfig, str] | None:
    """The config and where it is from, or None where neither a config nor a number of parameters is at hand.

    Looked for in this order: an embedded model's params, models/<m>/base, the folder, GGUF file or the hub's local
    cache that `models.<m>.source` names, then `num_parameters`.
    """
    spec = params.model(model)
    if spec.source.startswith("tiny:"):
        import torch

        config = params.section("tiny", tiny.TinyConfig, model=model)
        with torch.device("meta"):
            built = tiny.build(spec.source.removeprefix("tiny:"), config, vocab_size=config.vocab_size)
        return built.config, "params `tiny`"
    for place in (Layout(root).base(model), root / spec.source):
        if (place / "config.json").is_file():
            return _read(str(place)), str(place.relative_to(root) if place.is_relative_to(root) else place)
    if is_gguf(spec.source):
        path = find_gguf(root, spec.source)
        return read_config(path), path.name
    try:
        return _read(spec.source, revision=spec.revision), "the hub's cache on this machine"
    except (OSError, ValueError):
        return (_of_size(num_parameters), f"{num_parameters:g} parameters") if num_parameters else None


def _read(source: str, revision: str | None = None) -> PretrainedConfig:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source, revision=revision, local_files_only=True)


def _of_size(num_parameters: float) -> PretrainedConfig:
    """12 h^2 L + 2 h v = N, solved for the width h, a multiple of the heads."""
    from transformers import GPTNeoXConfig

    a, b = 12 * ASSUMED_LAYERS, 2 * ASSUMED_VOCAB
    hidden = (-b + (b * b + 4 * a * num_parameters) ** 0.5) / (2 * a)
    hidden = max(1, round(hidden / ASSUMED_HEADS)) * ASSUMED_HEADS
    return GPTNeoXConfig(
        hidden_size=hidden,
        num_hidden_layers=ASSUMED_LAYERS,
        num_attention_heads=ASSUMED_HEADS,
        intermediate_size=4 * hidden,
        vocab_size=ASSUMED_VOCAB,
    )
