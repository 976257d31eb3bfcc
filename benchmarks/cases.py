"""The models and texts on which attribution is measured, and the speed-up over Inseq that each must show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.floor import Widths
from detoxlens.attribution.sampling import choose
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.records import Completion
from detoxlens.models.loading import load_model
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params
from detoxlens.params.models import WeightsConfig

Text = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of its completion."""


@dataclass(frozen=True, slots=True)
class Case:
    """One model with the texts to attribute."""

    name: str
    model: nn.Module
    texts: list[Text]
    target_speedup: float
    device: str
    dtype: torch.dtype


def neox_256() -> Case:
    """4 layers, width 256, 4 heads, MLP 1,024, vocabulary 2,048, random weights; 63 + 85 random tokens."""
    return random_case("neox-256", neox(256, 4, 4, 1024, 2048), num_prompt=63, num_generated=85, target_speedup=6)


def demo_case(root: Path, params: Params, *, num_texts: int = 32) -> Case | None:
    """`tiny-neox` on completions that the stage `attribute` takes, evenly spaced over them; None before `dvc repro`."""
    layout = Layout(root)
    folder, table = layout.adapter("tiny-neox", "it"), layout.completions("tiny-neox", "it")
    if not (table.exists() and (folder / "model_ref.json").exists() and layout.base("tiny-neox").exists()):
        return None
    config = params.section("attribution", AttributionConfig, model="tiny-neox", variant="it")
    chosen = choose(read_rows(table, Completion), config, seed=params.run.seed, where=table)
    rows = [c for c in chosen if c.completion_ids]
    rows = rows[:: max(1, len(rows) // num_texts)][:num_texts]
    model = load_model(root, read_model_ref(folder), WeightsConfig(), device="cpu")
    texts = [(c.prompt_ids, c.completion_ids) for c in rows]
    return Case("tiny-neox", model, texts, 10, "cpu", torch.float32)


def gpu_cases() -> list[tuple[str, float]]:
    """Names and targets of the shapes for one datacentre GPU; `gpu_case` makes them, one at a time."""
    return [("neox-3b", 20.0), ("falcon-7b", 12.0)]


def gpu_case(name: str, target_speedup: float) -> Case:
    """RedPajama-INCITE-3B's or Falcon-7B's shape in bfloat16, random weights, 100 + 70 random tokens."""
    with torch.device("cuda"):
        if name == "neox-3b":
            model = neox(2560, 32, 32, 10240, 50432, dtype=torch.bfloat16)
        else:
            model = falcon(4544, 32, 71, 65024, dtype=torch.bfloat16)
    return random_case(name, model, num_prompt=100, num_generated=70, target_speedup=target_speedup)


def neox(
    hidden: int, num_layers: int, num_heads: int, intermediate: int, vocab: int, *, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A GPT-NeoX with random weights."""
    import transformers as hf

    config = hf.GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=intermediate,
        max_position_embeddings=2048,
    )
    return _random(hf.AutoModelForCausalLM, config, dtype)


def falcon(hidden: int, num_layers: int, num_heads: int, vocab: int, *, dtype: torch.dtype) -> nn.Module:
    """A Falcon with multi-query attention, as falcon-7b has, with random weights."""
    import transformers as hf

    config = hf.FalconConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
    )
    return _random(hf.AutoModelForCausalLM, config, dtype)


def _random(auto, config, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return auto.from_config(config, dtype=dtype).eval().requires_grad_(False)


def random_case(
    name: str, model: nn.Module, *, num_prompt: int, num_generated: int, target_speedup: float, seed: int = 0
) -> Case:
    """`model` on one text of random tokens."""
    weight = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(weight.shape[0], (num_prompt + num_generated,), generator=generator).tolist()
    text = tuple(ids[:num_prompt]), tuple(ids[num_prompt:])
    return Case(name, model, [text], target_speedup, weight.device.type, weight.dtype)


def shape_of(model: nn.Module) -> Widths:
    """Widths of a GPT-NeoX or Falcon, for the floor."""
    config = model.config
    heads = config.num_attention_heads
    is_falcon = config.model_type == "falcon"
    keys = config.hidden_size // heads if is_falcon and config.multi_query else config.hidden_size
    inner = config.ffn_hidden_size if is_falcon else config.intermediate_size
    return Widths(
        hidden=config.hidden_size,
        keys=keys,
        intermediate=inner,
        num_layers=config.num_hidden_layers,
        num_heads=heads,
        vocab=config.vocab_size,
    )
