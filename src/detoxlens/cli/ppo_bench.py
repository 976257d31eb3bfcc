"""Commands that prove PPO: speed and memory beside TRL's, and the demo's outcome over seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from detoxlens.cli.app import Context
from detoxlens.cli.research import bench_app


@bench_app.command("ppo")
def bench_ppo(
    repetitions: Annotated[int, typer.Option(min=1, help="Pairs of runs per seed.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of either side.")] = 5,
    steps: Annotated[int, typer.Option(min=6, help="PPO steps of a run, of 32 responses each.")] = 30,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 2,
) -> None:
    """Train the same model with our PPO and TRL 1.12.0's: speed, memory, reward, formulas."""
    from detoxlens.bench.ppo.command import bench_ppo as run_bench

    run_bench(Context.root, num_repetitions=repetitions, num_seeds=seeds, num_steps=steps, num_threads=num_threads)
