"""Commands for one question: explain a completion, search hyperparameters, measure this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app

bench_app = typer.Typer(
    help="Measure this machine: the pipeline, sampling, attribution against Inseq.", no_args_is_help=True
)
sweep_app = typer.Typer(
    help="Search LoRA and training settings with Optuna; `sweep apply` writes a trial's into params.yaml.",
    invoke_without_command=True,
)
app.add_typer(bench_app, name="bench", rich_help_panel=TOOLS)
app.add_typer(sweep_app, name="sweep", rich_help_panel=TOOLS)


@app.command(rich_help_panel=TOOLS)
def explain(
    checkpoint: Annotated[
        str,
        typer.Option(help="Folder of a variant (adapters/<model>/<variant>), model or PEFT adapter; or a hub id."),
    ],
    prompt: Annotated[str, typer.Option(help="What the model is asked.")],
    completion: Annotated[str | None, typer.Option(help="What it answers; sampled when left out.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Model in params.yaml whose chat template to use; default: the one the folder belongs to."),
    ] = None,
    no_template: Annotated[bool, typer.Option("--no-template", help="Give the model the prompt as it is.")] = False,
    method: Annotated[
        str, typer.Option(help="input_x_gradient, saliency, integrated_gradients, occlusion, value_zeroing, attention.")
    ] = "input_x_gradient",
    target: Annotated[
        str, typer.Option(help="probability, log_probability, or contrastive (against the likeliest other token).")
    ] = "probability",
    words: Annotated[
        bool, typer.Option("--words", help="Show words: summed over a word's tokens, averaged over a generated word's.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the heat map to this HTML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores as Inseq's JSON, for its viewer.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest sample, in tokens.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sample; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Of the sample; 0 keeps all tokens.")] = 50,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Of the sample; 1 keeps all tokens.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's own Python code from the hub.")
    ] = False,
) -> None:
    """Show what each generated token drew on: a coloured table, and a heat map in a file."""
    from detoxlens.config import load_params
    from detoxlens.explain.explanation import NO_TEMPLATE, check_choices, explain, find_checkpoint, find_template
    from detoxlens.explain.page import page
    from detoxlens.explain.terminal import print_explanation
    from detoxlens.explain.words import by_words
    from detoxlens.models.config import GenerationConfig

    check_choices(method=method, target=target, dtype=dtype, device=device, json=json, html=html)
    params_path = Context.root / Context.params_path
    chat = NO_TEMPLATE
    if not no_template:
        params = load_params(params_path) if params_path.exists() else None
        chat = find_template(params, checkpoint, template)
    found = explain(
        Context.root,
        checkpoint=checkpoint,
        ref=find_checkpoint(Context.root, checkpoint, revision=revision),
        template=chat,
        prompt=prompt,
        completion=completion,
        method=method,
        target=target,
        generation=GenerationConfig(
            max_new_tokens=max_new_tokens,
            min_new_tokens=1,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            no_repeat_ngram_size=0,
            num_samples=1,
            batch_size=1,
        ),
        seed=seed,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    shown = by_words(found) if words else found
    print_explanation(shown)
    if html is not None:
        from detoxlens.artifacts import write_text

        write_text(html, page(shown))
        typer.echo(f"Wrote {html}")
    if json is not None:
        from detoxlens.attribution.inseq_backend import write_inseq_json

        write_inseq_json(
            json,
            scores=found.scores,
            prompt_ids=found.prompt_ids,
            completion_ids=found.completion_ids,
            pieces=(*found.prompt_pieces, *found.completion_pieces),
            token_prob=found.token_prob,
            method=method,
        )
        typer.echo(f"Wrote {json}")


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
    prompts: Annotated[int, typer.Option(min=16, help="Evaluation prompts.")] = 64,
) -> None:
    """Run every stage at the full 3 B and 7 B shapes with random weights; needs a GPU."""
    from detoxlens.bench.scale import bench_scale as run_bench

    run_bench(Context.root, Context.root / Context.params_path, num_prompts=prompts)


@sweep_app.callback()
def sweep(
    context: typer.Context,
    method: Annotated[str, typer.Option(help="finetune or ppo.")] = "ppo",
    models: Annotated[
        str, typer.Option(help="Comma-separated model keys; 'unchanged' takes run.models.")
    ] = "unchanged",
    variant: Annotated[str | None, typer.Option(help="Which variant; default: the first the method trains.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials the study is to have in the end.")] = 24,
    study: Annotated[
        str | None, typer.Option(help="Study to begin, go on with or join; default: method-models.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="sqlite:///FILE, journal:FILE, postgresql://...; default: .detoxlens/optuna.db.",
            envvar="DETOXLENS_STORAGE",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, or trials at once on Ray.")] = 1,
    engine: Annotated[
        str, typer.Option(help="local, or ray: trials as tasks of the cluster in RAY_ADDRESS.")
    ] = "local",
    cpus_per_trial: Annotated[
        float | None, typer.Option(min=0.01, help="Of the Ray cluster; default: run.num_threads.")
    ] = None,
    gpus_per_trial: Annotated[float, typer.Option(min=0, help="Of the Ray cluster; .25: four on a GPU.")] = 0.0,
    join: Annotated[bool, typer.Option("--join", help="Only work on the study; another process reports.")] = False,
) -> None:
    """Search LoRA and training settings with Optuna; `sweep apply` writes a trial's into params.yaml."""
    if context.invoked_subcommand is not None:
        return
    from detoxlens.errors import UserError, did_you_mean
    from detoxlens.sweep.config import METHODS

    if method not in METHODS:
        allowed = ", ".join(METHODS)
        raise UserError(f"--method {method!r} is not known.{did_you_mean(method, METHODS)} Allowed: {allowed}.")
    if engine not in ("local", "ray"):
        raise UserError(f"--engine {engine!r} is not known. Allowed: local, ray.")
    if engine == "local" and (cpus_per_trial or gpus_per_trial):
        raise UserError("--cpus-per-trial and --gpus-per-trial are for --engine ray; a local trial takes run.device.")
    from detoxlens.config import load_params
    from detoxlens.sweep.command import sweep as run_sweep
    from detoxlens.sweep.ray_engine import Resources

    ray = None
    if engine == "ray":
        num_cpus = cpus_per_trial or load_params(Context.root / Context.params_path).run.num_threads
        ray = Resources(num_cpus=num_cpus, num_gpus=gpus_per_trial)
    folder = run_sweep(
        Context.root,
        Context.root / Context.params_path,
        method=method,
        models=[] if models == "unchanged" else [name.strip() for name in models.split(",") if name.strip()],
        variant=variant,
        num_trials=trials,
        study=study,
        storage=storage,
        num_workers=workers,
        join=join,
        track=Context.track,
        ray=ray,
    )
    if folder is not None:
        typer.echo((folder / "reading.md").read_text(encoding="utf-8").split("\n\n")[1])
        typer.echo(f"Tables and figures: {folder}")


@sweep_app.command("apply")
def sweep_apply(
    study: Annotated[str, typer.Option(help="The study.")],
    trial: Annotated[int, typer.Option(min=0, help="Number of a complete trial.")],
    storage: Annotated[
        str | None, typer.Option(help="Where the study is; default: .detoxlens/optuna.db.", envvar="DETOXLENS_STORAGE")
    ] = None,
) -> None:
    """Write a trial's point into params.yaml; then `dvc repro` finds its validation metrics again."""
    from detoxlens.sweep.apply import apply_trial

    path = Context.root / Context.params_path
    diff, stale = apply_trial(Context.root, path, study=study, number=trial, url=storage)
    typer.echo(diff or f"{path.name} has this point already.")
    if stale:
        typer.echo(f"Other things changed since, so the numbers will differ: {'; '.join(stale)}.", err=True)
    typer.echo("Next: dvc repro", err=True)
