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
    steps: Annotated[int, typer.Option(min=6, help="PPO steps of a run, of 32 responses each.")] = 20,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 2,
) -> None:
    """Train the same model with our PPO and TRL 1.12.0's: speed, memory, reward, formulas."""
    from detoxlens.bench.ppo.command import bench_ppo as run_bench

    run_bench(Context.root, num_repetitions=repetitions, num_seeds=seeds, num_steps=steps, num_threads=num_threads)


@bench_app.command("seeds")
def bench_seeds(
    variant: Annotated[str, typer.Option(help="The rl variant whose settings are kept.")] = "rl",
    models: Annotated[
        str, typer.Option(help="Comma-separated model keys; 'unchanged' takes run.models.")
    ] = "unchanged",
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds, from 0.")] = 5,
) -> None:
    """Train rl with several seeds: is it half as toxic as it, within the KL budget, every time? Resumes."""
    from detoxlens.bench.seeds import bench_seeds as run_bench

    run_bench(
        Context.root,
        Context.root / Context.params_path,
        variant=variant,
        models=[] if models == "unchanged" else [name.strip() for name in models.split(",") if name.strip()],
        num_seeds=seeds,
    )
