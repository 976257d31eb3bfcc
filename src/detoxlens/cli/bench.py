"""`detoxlens bench`: this machine measured, and this project beside others."""

from __future__ import annotations

from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app

bench_app = typer.Typer(
    help="Measure this machine: the pipeline, sampling, attribution against Inseq, PPO against TRL.",
    no_args_is_help=True,
)
app.add_typer(bench_app, name="bench", rich_help_panel=TOOLS)


@bench_app.command("pipeline")
def bench_pipeline(
    working_tree: Annotated[
        bool, typer.Option("--working-tree", help="The files as they are here, not as last committed.")
    ] = False,
) -> None:
    """Time a cold dvc repro in a fresh clone, a second one that has nothing to do, and --help."""
    from detoxlens.bench.pipeline import bench_pipeline as run_bench

    run_bench(Context.root, working_tree=working_tree)


@bench_app.command("attribution")
def bench_attribution(
    repetitions: Annotated[int, typer.Option(min=1, help="Pairs of measurements per case; the median counts.")] = 5,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 2,
) -> None:
    """Time our attribution and Inseq's on the same models and texts."""
    from detoxlens.bench.attribution import bench_attribution as run_bench

    run_bench(Context.root, Context.root / Context.params_path, num_repetitions=repetitions, num_threads=num_threads)


@bench_app.command("exactness")
def bench_exactness(
    texts: Annotated[int, typer.Option(min=1, help="Completions per trained variant.")] = 4,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
) -> None:
    """Compare our scores with Inseq's on this project's trained adapters, in float64 and in float32."""
    from detoxlens.bench.exactness import bench_exactness as run_bench

    run_bench(Context.root, Context.root / Context.params_path, num_texts=texts, num_threads=num_threads)


@bench_app.command("generate")
def bench_generate(
    model: Annotated[str, typer.Option("--model", "-m", help="A key of params.yaml's models.")] = "tiny-neox",
    prompts: Annotated[int, typer.Option(min=1, help="Evaluation prompts, evenly spaced over them.")] = 128,
    repetitions: Annotated[int, typer.Option(min=1, help="Rounds of measurements; medians count.")] = 3,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for all.")] = 2,
) -> None:
    """Time our sampling, the authors' prompt-by-prompt loop, and plain batches in a fixed order."""
    from detoxlens.bench.generation import bench_generation as run_bench

    run_bench(
        Context.root,
        Context.root / Context.params_path,
        model=model,
        num_prompts=prompts,
        num_repetitions=repetitions,
        num_threads=num_threads,
    )


@bench_app.command("scale")
def bench_scale(
    size: Annotated[
        str, typer.Option(help="full: the 3 B and 7 B shapes, on a GPU; tenth: 0.3 B and 0.7 B, on a CPU.")
    ] = "full",
    prompts: Annotated[
        int | None, typer.Option(min=2, help="Evaluation prompts; default: 64, or 4 of a tenth.")
    ] = None,
) -> None:
    """Run every stage on random weights in the published models' shapes, or a tenth of them. Resumes."""
    from detoxlens.bench.scale import bench_scale as run_bench
    from detoxlens.bench.scale_sizes import SIZES
    from detoxlens.common.errors import UserError, did_you_mean

    if size not in SIZES:
        raise UserError(f"--size {size!r} is not known.{did_you_mean(size, SIZES)} Allowed: {', '.join(SIZES)}.")
    run_bench(
        Context.root,
        Context.root / Context.params_path,
        name=size,
        size=SIZES[size],
        num_prompts=prompts or SIZES[size].num_prompts,
    )


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
    from detoxlens.pipeline.repro import names_of

    run_bench(
        Context.root,
        Context.root / Context.params_path,
        variant=variant,
        models=names_of(models),
        num_seeds=seeds,
    )
