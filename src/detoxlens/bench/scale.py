"""`detoxlens bench scale`: every stage at the full 3 B and 7 B shapes, on 64 prompts, with times and memory.

Checkpoints with random weights of the two models' shapes are made in the state folder and deleted again; everything
else is what the pipeline does with the params of redpajama-3b and falcon-7b: template, LoRA, batch sizes, decoding.
What the models say is noise; what the stages take is not. Training is cut to a few steps.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from detoxlens.artifacts import Layout, read_rows, write_json
from detoxlens.bench.cases import gpu_case
from detoxlens.bench.hardware import hardware, in_words
from detoxlens.config import Params, load_params
from detoxlens.data.sample import base_corpus
from detoxlens.models import tiny
from detoxlens.records import Completion
from detoxlens.seeding import fix_global_state

NUM_PROMPTS = 64
NUM_PPO_STEPS = 2
SFT_EPOCHS = 0.1
TOKENIZER_SIZE = 1024
SHARED = ("prepare", "reward_model")
PER_MODEL = ("base",)
PER_VARIANT = {"it": ("generate", "score", "attribute"), "ft": ("finetune", "generate", "score", "attribute")}
PER_VARIANT["rl"] = ("rl", "generate", "score", "attribute")
Shapes = Mapping[str, Callable[[], nn.Module]]
"""Model in params.yaml -> a function that makes it with random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """StageCost(model="falcon-7b", stage="rl", variant="rl", seconds=61.2, peak_gib=31.4, tokens_per_second=None)"""

    model: str
    stage: str
    variant: str
    seconds: float
    peak_gib: float
    """Most memory that the stage held: of the GPU, or of this process so far on a CPU."""
    tokens_per_second: float | None
    """Generated, loading included."""


def full_shapes() -> Shapes:
    """The published models' shapes in bfloat16; need about 20 GiB of a GPU's memory each way, and of disk."""
    return {
        "redpajama-3b": lambda: gpu_case("neox-3b", 0).model,
        "falcon-7b": lambda: gpu_case("falcon-7b", 0).model,
    }


def bench_scale(root: Path, params_path: Path, *, num_prompts: int = NUM_PROMPTS) -> None:
    """Measures, prints the table, writes reports/bench/scale.json; without a GPU it says so and records nothing."""
    console = Console(highlight=False)
    if not torch.cuda.is_available():
        console.print("Not measured: no GPU was found, and the full shapes need one. Nothing is recorded.")
        return
    found = hardware()
    console.print(in_words(found))
    folder = Layout(root).state / "bench-scale"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        costs = run_at(folder, root, load_params(params_path), full_shapes(), device="cuda", num_prompts=num_prompts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(table_of(costs))
    path = Layout(root).reports / "bench" / "scale.json"
    write_json(
        path, {"hardware": found, "num_prompts": num_prompts, "stages": [dataclasses.asdict(cost) for cost in costs]}
    )
    console.print(f"Wrote {path.relative_to(root)}")


def run_at(
    folder: Path, root: Path, params: Params, shapes: Shapes, *, device: str, num_prompts: int
) -> list[StageCost]:
    """Every stage but the report, in a study of its own under `folder`.

    Args:
        folder: is made; left to the caller to delete.
        root: repository root; its data are read.
        params: of the repository; the models' own settings are taken as they are.
        shapes: what to run.
        device: e.g. "cuda".
        num_prompts: evaluation prompts, an eighth of them for validation.
    """
    for model, make in shapes.items():
        save_checkpoint(make(), folder / "checkpoints" / model)
        _free()
    small = cut_down(params, root, list(shapes), device=device, num_prompts=num_prompts)
    costs = [_timed(folder, small, stage, device) for stage in SHARED]
    for model in shapes:
        costs += [_timed(folder, small, stage, device, model=model) for stage in PER_MODEL]
        for variant, stages in PER_VARIANT.items():
            costs += [_timed(folder, small, stage, device, model=model, variant=variant) for stage in stages]
    return costs


def save_checkpoint(network: nn.Module, folder: Path) -> None:
    """The model as `from_pretrained` reads it, with a small tokenizer of our own."""
    texts = [turn for talk in base_corpus(300, 0, rude=0.5, counter=0.2) for e in talk for turn in (e.human, e.reply)]
    tokenizer = tiny.train_tokenizer([*texts, "<human>: <bot>: ### Question: ### Answer:"], TOKENIZER_SIZE)
    network.config.eos_token_id = network.config.bos_token_id = tokenizer.eos_token_id
    network.generation_config.eos_token_id = network.generation_config.bos_token_id = tokenizer.eos_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def cut_down(params: Params, root: Path, models: list[str], *, device: str, num_prompts: int) -> Params:
    """The params with few prompts and few training steps; batch sizes, LoRA and decoding as they are."""
    raw: dict[str, Any] = copy.deepcopy(params.raw)
    raw["run"] |= {
        "models": models, "variants": ["it", "ft", "rl"], "sft_variants": ["ft"], "rl_variants": ["rl"],
        "rl_after_ft_variants": [], "device": device,
    }  # fmt: skip
    for key in ("dialoconan", "rtp"):
        if (root / raw["data"][key]).is_file():
            raw["data"][key] = str((root / raw["data"][key]).resolve())
    name = raw["report"]["primary_split"]
    raw["splits"] = {name: raw["splits"][name] | {"max_val": num_prompts // 8, "max_test": num_prompts * 7 // 8}}
    raw["attribution"]["filters"] = [name]
    raw["ppo"]["num_steps"] = NUM_PPO_STEPS
    raw["ppo"]["validation"] |= {"every": NUM_PPO_STEPS, "num_prompts": num_prompts // 8, "filter": name}
    raw["toxicity"] |= {"scorers": ["profanity_check"], "headline": "profanity_check", "calibration": None}
    for model in models:
        entry = raw["models"][model]
        entry |= {"source": f"checkpoints/{model}", "revision": None}
        entry["overrides"]["sft"] |= {"num_epochs": SFT_EPOCHS, "eval_every": 100, "warmup_steps": 0}
    return Params(raw, params.path)


def _timed(folder: Path, params: Params, stage: str, device: str, *, model: str = "", variant: str = "") -> StageCost:
    """Runs one stage in this process."""
    fix_global_state(params.run.seed, params.run.num_threads)
    module = importlib.import_module(f"detoxlens.stages.{stage}")
    is_cuda = device.startswith("cuda")
    _free()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    named = {key: value for key, value in (("model", model), ("variant", variant)) if value}
    started = time.perf_counter()
    module.run(folder, params, **named)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if is_cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed = None
    if stage == "generate":
        rows = read_rows(Layout(folder).completions(model, variant), Completion)
        speed = sum(len(row.completion_ids) for row in rows) / seconds
    return StageCost(
        model=model, stage=stage, variant=variant, seconds=seconds, peak_gib=peak / 2**30, tokens_per_second=speed
    )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def table_of(costs: list[StageCost]) -> Table:
    """One row per stage."""
    table = Table(title="Every stage at full shape", title_justify="left")
    for head in ("model", "variant", "stage"):
        table.add_column(head, no_wrap=True)
    for head in ("seconds", "peak GiB", "tokens/s"):
        table.add_column(head, justify="right", no_wrap=True)
    for c in costs:
        speed = "" if c.tokens_per_second is None else f"{c.tokens_per_second:.0f}"
        table.add_row(c.model, c.variant, c.stage, f"{c.seconds:.1f}", f"{c.peak_gib:.1f}", speed)
    return table
