"""Sampling beside two plain ways, on the same prompts, in one run.

    one by one    the authors' loop: transformers' `generate` on one prompt at a time
    fixed order   `generate` on left-padded batches of our batch size, in the order of the file

All three decode by the same params. Rounds are paired (one of each, order rotating) after one untimed round on a few
prompts; a speed-up is the median of the rounds' ratios. Loading and tokenising are not timed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.floor import timed
from benchmarks.hardware import hardware, in_words
from benchmarks.script import run, write_figures
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Prompt
from detoxlens.common.seeding import derive_seed
from detoxlens.data.templates import encode_prompt
from detoxlens.models.capabilities import examine
from detoxlens.models.forward import left_padded
from detoxlens.models.generation import auto_batch_size, sample
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.truncation import NO_TOKEN
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import load_params

TARGETS = {"one by one": 5.0, "fixed order": 1.3}
"""Times as fast as this way ours is to be."""
OURS = "ours"
NUM_WARM_UP = 8
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One way to sample; seconds are for all prompts, medians over rounds."""

    way: str
    seconds: float
    num_tokens: int
    """Generated in the last round, end-of-sequence tokens included; ways draw other random numbers."""
    tokens_per_second: float
    speedup_of_ours: float | None
    """Median of the rounds' ratios of seconds."""
    speedup_range: tuple[float, float] | None
    target_speedup: float | None


def bench_generation(
    root: Path, params_path: Path, *, model: str, num_prompts: int, num_repetitions: int, num_threads: int
) -> None:
    """Measures, prints the table, writes benchmarks/results/generation.json.

    Args:
        root: repository root.
        params_path: params.yaml; decoding, template and device.
        model: key of `models`; its variant `it` is sampled from.
        num_prompts: of the evaluation prompts, evenly spaced.
        num_repetitions: rounds.
        num_threads: torch's threads.

    Raises:
        UserError: there are no prompts or no model yet.
    """
    torch.set_num_threads(num_threads)
    params, layout = load_params(params_path), Layout(root)
    spec = params.model(model)
    config = params.section("generation", GenerationConfig, model=model)
    found = hardware() | {"num_threads": num_threads}
    console = Console(highlight=False)
    console.print(f"{in_words(found)}; {num_threads} threads")
    ref = read_model_ref(layout.adapter(model, "it"))
    prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split != "train"]
    if not prompts:
        raise UserError(f"{layout.prompts} holds no validation or test prompts; `dvc repro` makes them.")
    prompts = prompts[:: max(1, len(prompts) // num_prompts)][:num_prompts]
    network = load_model(root, ref, spec, device=params.run.device)
    tokenizer = load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code)
    ids = [encode_prompt(tokenizer, spec.template, [p.text], evaluation=True).ids for p in prompts]
    size = config.batch_size
    if size == "auto":
        size = auto_batch_size(network, longest_prompt=max(map(len, ids)), max_new_tokens=config.max_new_tokens)
    ways = ways_of(
        network, config, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, batch_size=size
    )
    measured = measure(ways, ids, num_repetitions=num_repetitions, device=params.run.device)
    console.print(table_of(measured, title=f"{model}: {len(ids)} prompts, batches of {size}, median seconds"))
    setting = {
        "model": model,
        "num_prompts": len(ids),
        "batch_size": size,
        "num_repetitions": num_repetitions,
        "generation": config.model_dump(),
    }
    figures = {"hardware": found, **setting, "ways": [dataclasses.asdict(m) for m in measured]}
    console.print(f"Wrote {write_figures(root, 'generation', figures)}")


Way = Callable[[Sequence[Ids]], list[Ids]]
"""Prompts -> what was generated after each, in their order, end-of-sequence token included."""


def ways_of(
    network: nn.Module, config: GenerationConfig, *, eos_token_id: int, pad_token_id: int, batch_size: int
) -> dict[str, Way]:
    """Each way to sample, ours first."""

    able = examine(network, pad_token_id=pad_token_id)  # once, outside of what is timed

    def ours(prompts: Sequence[Ids]) -> list[Ids]:
        seeds = [derive_seed(0, "bench", i) for i in range(len(prompts))]
        sampled = sample(
            network,
            prompts,
            config=config,
            seeds=seeds,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            batch_size=batch_size,
            capabilities=able,
        )
        return [s.token_ids for s in sampled]

    @torch.no_grad()
    def generate(prompts: Sequence[Ids]) -> list[Ids]:
        ids = left_padded(prompts).to(network.device)  # (batch, width)
        out = network.generate(
            input_ids=ids.masked_fill(ids == NO_TOKEN, pad_token_id),
            attention_mask=(ids != NO_TOKEN).long(),
            max_new_tokens=config.max_new_tokens,
            min_new_tokens=config.min_new_tokens,
            do_sample=config.temperature > 0,
            temperature=config.temperature or None,
            top_k=config.top_k,
            top_p=config.top_p,
            no_repeat_ngram_size=config.no_repeat_ngram_size,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
        )[:, ids.shape[1] :].tolist()
        return [tuple(row[: row.index(eos_token_id) + 1] if eos_token_id in row else row) for row in out]

    def one_by_one(prompts: Sequence[Ids]) -> list[Ids]:
        return [generate([prompt])[0] for prompt in prompts]

    def fixed_order(prompts: Sequence[Ids]) -> list[Ids]:
        starts = range(0, len(prompts), batch_size)
        return [row for start in starts for row in generate(prompts[start : start + batch_size])]

    return {OURS: ours, "one by one": one_by_one, "fixed order": fixed_order}


def measure(ways: dict[str, Way], prompts: Sequence[Ids], *, num_repetitions: int, device: str) -> list[Measurement]:
    """Every way on the same prompts, in paired rounds."""
    torch.manual_seed(0)
    for way in ways.values():
        way(prompts[:NUM_WARM_UP])
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    num_tokens: dict[str, int] = {}
    for i in range(num_repetitions):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            took, generated = timed(lambda way=ways[name]: way(prompts), device)
            seconds[name].append(took)
            num_tokens[name] = sum(map(len, generated))
    return [_measurement(name, seconds, num_tokens[name]) for name in names]


def _measurement(name: str, seconds: dict[str, list[float]], num_tokens: int) -> Measurement:
    ratios = [theirs / ours for theirs, ours in zip(seconds[name], seconds[OURS], strict=True)]
    median, is_ours = statistics.median(seconds[name]), name == OURS
    return Measurement(
        way=name,
        seconds=median,
        num_tokens=num_tokens,
        tokens_per_second=num_tokens / median,
        speedup_of_ours=None if is_ours else statistics.median(ratios),
        speedup_range=None if is_ours else (min(ratios), max(ratios)),
        target_speedup=TARGETS.get(name),
    )


def table_of(measured: Sequence[Measurement], *, title: str) -> Table:
    """One row per way."""
    table = Table(title=title, title_justify="left", padding=(0, 0))
    table.add_column("way", no_wrap=True)
    for head in ("seconds", "tokens", "tokens/s", "ours faster", "range", "target"):
        table.add_column(head, justify="right", no_wrap=True)
    for m in measured:
        cells = [m.way, f"{m.seconds:.2f}", str(m.num_tokens), f"{m.tokens_per_second:.0f}", "", "", ""]
        if m.speedup_of_ours is not None and m.speedup_range is not None and m.target_speedup is not None:
            reached = "[green]" if m.speedup_of_ours >= m.target_speedup else "[red]"
            low, high = m.speedup_range
            cells[4:] = [f"{reached}{m.speedup_of_ours:.1f}x[/]", f"{low:.1f}-{high:.1f}", f"{m.target_speedup:g}x"]
        table.add_row(*cells)
    return table


def main(
    model: Annotated[str, typer.Option("--model", "-m", help="A key of params.yaml's models.")] = "tiny-neox",
    prompts: Annotated[int, typer.Option(min=1, help="Evaluation prompts, evenly spaced over them.")] = 128,
    repetitions: Annotated[int, typer.Option(min=1, help="Rounds of measurements; medians count.")] = 3,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for all.")] = 2,
) -> None:
    """Time our sampling, the authors' prompt-by-prompt loop, and plain batches in a fixed order."""
    bench_generation(
        Path(),
        Path("params.yaml"),
        model=model,
        num_prompts=prompts,
        num_repetitions=repetitions,
        num_threads=num_threads,
    )


if __name__ == "__main__":
    run(main)
