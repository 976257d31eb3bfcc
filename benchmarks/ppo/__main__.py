"""`python -m benchmarks.ppo`: PPO, ours and TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ppo.pairs import bench_ppo
from benchmarks.script import run


def main(
    repetitions: Annotated[int, typer.Option(min=1, help="Pairs of runs per seed.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of either side.")] = 5,
    steps: Annotated[int, typer.Option(min=6, help="PPO steps of a run, of 32 responses each.")] = 20,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 2,
) -> None:
    """Train the same model with our PPO and TRL 1.12.0's: speed, memory, reward, formulas."""
    bench_ppo(Path(), num_repetitions=repetitions, num_seeds=seeds, num_steps=steps, num_threads=num_threads)


if __name__ == "__main__":
    run(main)
