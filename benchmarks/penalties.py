"""What a penalty on how the prompt is used costs: a step of fine-tuning with each kind over the same step without.

Each round trains every arm for the same steps on the same batches (one seed, arms in turn); a ratio is that of a
round's CPU seconds, its first step left out. The toxic words of `toxic_share` are found once, before training: their
cost is given in plain steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.hardware import hardware, in_words
from benchmarks.importance.arms import PLAIN
from benchmarks.importance.bench import MODEL, Size
from benchmarks.importance.sft import Sft
from benchmarks.script import run, write_figures
from detoxlens.params.load import load_params

NAME = "penalties"
KINDS = ("attention_entropy", "attribution_entropy", "toxic_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost(kind="toxic_share", num_examples=None, seconds=2.1, ratio=3.7, ratio_range=(3.5, 3.9))"""

    kind: str
    num_examples: int | None
    """Of a batch that are under the penalty; None is all."""
    seconds: float
    """CPU time of a step, median over rounds."""
    ratio: float | None
    """To the plain step, median over rounds; None of the plain one."""
    ratio_range: tuple[float, float] | None


def arms(some: int) -> dict[tuple[str, int | None], dict[str, Any]]:
    """(kind, examples under the penalty) -> `sft.regularizer`, the plain one first."""
    found: dict[tuple[str, int | None], dict[str, Any]] = {(PLAIN, None): {}}
    for kind in KINDS:
        for num in (None, some):
            found[kind, num] = {"kind": kind, "weight": 1.0, "num_examples": num}
    return found


def costs(
    settings: Mapping[tuple[str, int | None], Mapping[str, Any]],
    seconds_of: Callable[[Mapping[str, Any], int], Sequence[float]],
    *,
    num_rounds: int,
) -> list[Cost]:
    """The cost of each arm.

    Args:
        settings: from `arms`.
        seconds_of: setting and seed -> CPU seconds of each step after the first.
        num_rounds: seeds.
    """
    rounds: dict[tuple[str, int | None], list[float]] = {arm: [] for arm in settings}
    for seed in range(num_rounds):
        for arm, setting in settings.items():
            rounds[arm].append(statistics.mean(seconds_of(setting, seed)))
    plain = rounds[PLAIN, None]
    found = []
    for (kind, num), seconds in rounds.items():
        ratios = [own / without for own, without in zip(seconds, plain, strict=True)]
        is_plain = kind == PLAIN
        found.append(
            Cost(
                kind=kind,
                num_examples=num,
                seconds=statistics.median(seconds),
                ratio=None if is_plain else statistics.median(ratios),
                ratio_range=None if is_plain else (min(ratios), max(ratios)),
            )
        )
    return found


def step_seconds(bench: Sft, setting: Mapping[str, Any], seed: int) -> list[float]:
    """CPU seconds of each step after the first of one training."""
    ends: list[float] = []
    bench.train(setting, seed=seed, on_step=lambda model, step: ends.append(time.process_time()))
    return [end - start for start, end in pairwise(ends[1:])]  # ends[0] is before the first step


def marking_seconds(bench: Sft) -> float:
    """CPU seconds of finding the toxic words of all dialogues of a training."""
    with_words, without = (_seconds(lambda words=words: bench.encode(words=words)) for words in (True, False))
    return with_words - without


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def table_of(found: Sequence[Cost], *, title: str) -> Table:
    """One row per arm."""
    table = Table(title=title, title_justify="left", padding=(0, 0))
    table.add_column("kind", no_wrap=True)
    for head in ("examples", "CPU seconds", "ratio", "range"):
        table.add_column(head, justify="right", no_wrap=True)
    for cost in found:
        ratio = low_high = ""
        if cost.ratio is not None and cost.ratio_range is not None:
            ratio, low_high = f"{cost.ratio:.1f}x", "{:.1f}-{:.1f}".format(*cost.ratio_range)
        table.add_row(cost.kind, str(cost.num_examples or "all"), f"{cost.seconds:.2f}", ratio, low_high)
    return table


def main(
    num_steps: Annotated[int, typer.Option(min=2, help="Of each training; the first is not counted.")] = 9,
    batch_size: int = 16,
    some: Annotated[int, typer.Option(min=1, help="Examples of a batch, beside all of them.")] = 4,
    num_rounds: int = 5,
) -> None:
    """Time a training step with each kind of penalty; needs data/prepared and models/tiny-neox."""
    root, console = Path(), Console(highlight=False)
    params = load_params(root / "params.yaml")
    size = Size(num_steps=num_steps, batch_size=batch_size, look_every=num_steps, num_threads=params.run.num_threads)
    bench = Sft(root, params, size, words=True)
    on = hardware() | {"num_threads": params.run.num_threads}
    console.print(in_words(on))
    found = costs(arms(some), lambda setting, seed: step_seconds(bench, setting, seed), num_rounds=num_rounds)
    marking = marking_seconds(bench)
    console.print(table_of(found, title=f"{MODEL}: a step of {batch_size} dialogues"))
    words = {"num_dialogues": len(bench.train_dialogues), "seconds": marking, "plain_steps": marking / found[0].seconds}
    console.print(
        f"toxic words of {len(bench.train_dialogues)} dialogues: {words['plain_steps']:.1f} plain steps, once"
    )
    setting = {"model": MODEL, "num_steps": num_steps, "batch_size": batch_size, "num_rounds": num_rounds}
    figures = {"setting": setting, "costs": [asdict(c) for c in found], "toxic_words": words, "hardware": on}
    console.print(f"Wrote {write_figures(root, NAME, figures)}")


if __name__ == "__main__":
    run(main)
