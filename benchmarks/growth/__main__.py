"""python -m benchmarks.growth: cost by prompts, tokens, width and depth at three sizes each, with exponents."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.growth.fit import exponent, last_exponent
from benchmarks.growth.models import SIZES, cpu_seconds, shapes, work_of
from benchmarks.growth.stages import Spent, measured
from benchmarks.growth.study import NUM_SAMPLES, VARIANTS
from benchmarks.hardware import hardware, in_words
from benchmarks.script import run, write_figures

NAME = "growth"
STAGES = ("prepare", "score", "report")
PROMPTS = (1_000, 10_000, 100_000)


def by_prompts(folder: Path, sizes: list[int]) -> dict[str, dict[int, Spent]]:
    """Stage -> prompts -> what it took; `score` of one variant, the dearer."""
    found: dict[str, dict[int, Spent]] = {stage: {} for stage in STAGES}
    for num in sizes:
        project = folder / str(num)

        def take(step: str, *arguments: str, project: Path = project) -> Spent:
            log = folder / "log"
            return measured(["-m", "benchmarks.growth.child", str(project), step, *arguments], log=log)

        take("write", str(num))
        found["prepare"][num] = take("prepare")
        take("completions")
        found["score"][num] = max((take("score", v) for v in VARIANTS), key=lambda spent: spent.cpu_seconds)
        found["report"][num] = take("report")
        shutil.rmtree(project)
    return found


def by_shape(root: Path, *, num_repetitions: int) -> dict[str, dict[str, dict[int, float]]]:
    """Kind of work -> what is varied -> size -> CPU seconds."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name, size, shape in shapes():
        for kind, work in work_of(root, shape).items():
            of = found.setdefault(kind, {}).setdefault(name, {})
            of[size] = cpu_seconds(work, num_repetitions=num_repetitions)
    return found


def growth(cost: Mapping[int, float]) -> dict[str, object]:
    """{"cost": {size: cost}, "exponent": of all sizes, "last_exponent": of the two largest}."""
    several = len(cost) > 1
    return {
        "cost": {str(size): value for size, value in cost.items()},
        "exponent": exponent(cost) if several else None,
        "last_exponent": last_exponent(cost) if several else None,
    }


def main(
    num_prompts: Annotated[
        list[int] | None,
        typer.Option(
            help="A size of the made-up study, several times; 0 alone leaves it out.", show_default=str(PROMPTS)
        ),
    ] = None,
    num_repetitions: Annotated[int, typer.Option(min=0, help="Of the models' work; 0 leaves it out.")] = 3,
) -> None:
    """Measure prepare, score and report on made-up studies, and the models' work on random ones."""
    root, console = Path(), Console(highlight=False)
    on = hardware()
    console.print(in_words(on))
    figures: dict[str, object] = {"hardware": on, "num_samples": NUM_SAMPLES, "num_variants": len(VARIANTS)}
    table = Table(title="Cost by size", title_justify="left", padding=(0, 0))
    for head in ("what", "by", "sizes", "cost", "exponent", "of the last two"):
        table.add_column(head, justify="left" if head in ("what", "by") else "right", no_wrap=True)

    def add(what: str, by: str, cost: Mapping[int, float], digits: int) -> dict[str, object]:
        found = growth(cost)
        exponents = ["" if found[k] is None else f"{found[k]:.2f}" for k in ("exponent", "last_exponent")]
        values = " / ".join(f"{value:.{digits}f}" for value in cost.values())
        table.add_row(what, by, " / ".join(f"{size:,}" for size in cost), values, *exponents)
        return found

    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        sizes = sorted(num for num in num_prompts or PROMPTS if num)
        spent = by_prompts(Path(folder), sizes) if sizes else {}
    figures["prompts"] = {
        stage: {
            "cpu_seconds": add(f"{stage}, CPU s", "prompts", {n: s.cpu_seconds for n, s in of.items()}, 1),
            "peak_mib": add(f"{stage}, peak MiB", "prompts", {n: s.peak_mib for n, s in of.items()}, 0),
            "spent": {str(n): asdict(s) for n, s in of.items()},
        }
        for stage, of in spent.items()
    }
    figures["shapes"] = {
        kind: {name: add(f"{kind}, CPU s", name, of[name], 3) for name in SIZES}
        for kind, of in (by_shape(root, num_repetitions=num_repetitions) if num_repetitions else {}).items()
    }
    console.print(table)
    console.print(f"Wrote {write_figures(root, NAME, figures)}")


if __name__ == "__main__":
    run(main)
