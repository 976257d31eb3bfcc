"""`detoxlens sweep`: hyperparameters searched, and a trial's written into params.yaml."""

from __future__ import annotations

from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app
from detoxlens.cli.typer_app import App
from detoxlens.params.kinds import KINDS, SWEEPS

sweep_app = App(
    help="Search LoRA and training settings with Optuna; `sweep apply` writes a trial's into params.yaml.",
    invoke_without_command=True,
)
app.add_typer(sweep_app, name="sweep", rich_help_panel=TOOLS)


@sweep_app.callback()
def sweep(
    context: typer.Context,
    method: Annotated[
        str,
        typer.Option(help=f"{', '.join(SWEEPS)}; a kind, stage or variant names them too: sft, ft, rl."),
    ] = "ppo",
    models: Annotated[
        str, typer.Option(help="Comma-separated model keys; 'unchanged' takes run.models.")
    ] = "unchanged",
    variant: Annotated[str | None, typer.Option(help="Which variant; default: the first the method trains.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials the study is to have in the end.")] = 24,
    study: Annotated[str | None, typer.Option(help="Study to begin, resume or join; default: method-models.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="sqlite:///FILE, journal:FILE, postgresql://...; default: kept/optuna.db.",
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
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(min=0, help="Of the Ray cluster; .25: four on a GPU; default: 1 where run.device is a GPU."),
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="Only work on the study; another process reports.")] = False,
) -> None:
    """Search LoRA and training settings with Optuna; `sweep apply` writes a trial's into params.yaml."""
    if context.invoked_subcommand is not None:
        return
    from detoxlens.common.errors import UserError, did_you_mean

    meant = [
        kind.sweep
        for name, kind in KINDS.items()
        if kind.sweep and method in (kind.sweep, name, kind.stage, kind.placebo_of)
    ]
    if len(meant) != 1:
        problem = f"means {', '.join(meant)}." if meant else f"is not known.{did_you_mean(method, SWEEPS)}"
        raise UserError(f"--method {method!r} {problem} Allowed: {', '.join(SWEEPS)}.")
    (method,) = meant
    if engine not in ("local", "ray"):
        raise UserError(f"--engine {engine!r} is not known. Allowed: local, ray.")
    if engine == "local" and (cpus_per_trial or gpus_per_trial):
        raise UserError("--cpus-per-trial and --gpus-per-trial are for --engine ray; a local trial takes run.device.")
    from detoxlens.jobs.cluster import resources_of
    from detoxlens.params.load import load_params
    from detoxlens.pipeline.repro import names_of
    from detoxlens.sweep.command import sweep as run_sweep

    ray = None
    if engine == "ray":
        run = load_params(Context.root / Context.params_path).run
        ray = resources_of(cpus_per_trial, gpus_per_trial, num_threads=run.num_threads, device=run.device)
    folder = run_sweep(
        Context.root,
        Context.root / Context.params_path,
        method=method,
        models=names_of(models),
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
        typer.echo((folder / "conclusions.md").read_text(encoding="utf-8").split("\n\n")[1])
        typer.echo(f"Tables and figures: {folder}")


@sweep_app.command("apply")
def sweep_apply(
    study: Annotated[str, typer.Option(help="The study.")],
    trial: Annotated[int, typer.Option(min=0, help="Number of a complete trial.")],
    storage: Annotated[
        str | None, typer.Option(help="Where the study is; default: kept/optuna.db.", envvar="DETOXLENS_STORAGE")
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
