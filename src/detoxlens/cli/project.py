"""Commands around the pipeline: sample data, `repro`, MLflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app


@app.command(rich_help_panel=TOOLS)
def sample(
    folder: Annotated[Path, typer.Option(help="Where to write the files.")] = Path("data/sample"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generator; the committed files are seed 0.")] = 0,
) -> None:
    """Regenerate the embedded sample data."""
    from detoxlens.common.artifacts import write_text
    from detoxlens.data.sample_files import sample_files

    files = sample_files(seed)
    for name, text in files.items():
        write_text(Context.project() / folder / name, text)
    typer.echo(f"Wrote {', '.join(f'{folder}/{name}' for name in files)} (seed {seed}).")


@app.command(rich_help_panel=TOOLS)
def repro(
    models: Annotated[str, typer.Option(help="Comma-separated model keys, or 'unchanged'.")] = "unchanged",
    variants: Annotated[str, typer.Option(help="Comma-separated variant keys, or 'unchanged'.")] = "unchanged",
    seed: Annotated[str, typer.Option(help="run.seed, or 'unchanged'.")] = "unchanged",
    evaluate_only: Annotated[
        bool, typer.Option("--evaluate-only", help="Only generate, score, attribute, report.")
    ] = False,
) -> None:
    """Write models, variants or seed into params.yaml, then run the pipeline (what `mlflow run` calls)."""
    from detoxlens.pipeline.repro import repro as run_pipeline

    status = run_pipeline(
        Context.root,
        Context.root / Context.params_path,
        models=models,
        variants=variants,
        seed=seed,
        evaluate_only=evaluate_only,
    )
    raise typer.Exit(status)


@app.command(rich_help_panel=TOOLS)
def variants(
    names: Annotated[list[str], typer.Argument(help="Keys of params.yaml's variants to run, e.g. it ft rl.")],
) -> None:
    """Write run.variants and the lists by kind that follow from it into params.yaml, and show what changed."""
    from detoxlens.params.edit import change_run_section, diff_of, variant_lists
    from detoxlens.params.load import load_params

    path = Context.root / Context.params_path
    lists = variant_lists(load_params(path), names)
    before = path.read_text(encoding="utf-8")
    change_run_section(path, lists)
    typer.echo(diff_of(path, before) or "Nothing to change.")


@app.command(rich_help_panel=TOOLS)
def preset(name: Annotated[str, typer.Argument(help="A file in presets/ without .yaml, e.g. authors.")]) -> None:
    """Write a preset's settings into params.yaml, comments kept, and show what changed."""
    from detoxlens.params.presets import apply_preset

    typer.echo(apply_preset(Context.root, Context.root / Context.params_path, name) or "Nothing to change.")


@app.command(rich_help_panel=TOOLS)
def experiments(
    names: Annotated[list[str] | None, typer.Argument(help="Which; default: all of the present commit.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write table and entropy curves to this HTML file.")] = None,
) -> None:
    """Show DVC's experiments at terminal width: what each changed, and the headline numbers that moved."""
    from detoxlens.experiments.read import show
    from detoxlens.experiments.terminal import print_experiments

    found = show(Context.root, names or ())
    print_experiments(found)
    if html is not None:
        from detoxlens.common.artifacts import write_text
        from detoxlens.experiments.page import page, read_curves

        write_text(html, page(found, read_curves(Context.root, found)))
        typer.echo(f"Wrote {html}")


@app.command(rich_help_panel=TOOLS)
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that answer; each takes as long to start as the first.")
    ] = 1,
) -> None:
    """Open MLflow's pages on this project's runs."""
    from detoxlens.tracking import resolve_store
    from detoxlens.tracking.ui import ui as serve

    if not resolve_store(Context.root, os.environ).is_server:
        Context.project()
    raise typer.Exit(serve(Context.root, host=host, port=port, workers=workers))


@app.command(rich_help_panel=TOOLS)
def log() -> None:
    """Write the report's runs into MLflow, in a fresh clone too; with texts and adapters after `dvc pull`."""
    from detoxlens.params.load import load_params
    from detoxlens.pipeline.publish import publish_runs
    from detoxlens.tracking import resolve_store

    store = resolve_store(Context.root, os.environ)
    params = load_params(Context.root / Context.params_path)
    if without := publish_runs(Context.root, params, store, environ=os.environ):
        typer.echo(
            f"Written from reports/ alone: {', '.join(without)}. Their completions, adapters and curves are not in "
            "git; `dvc pull` or `dvc repro` brings them, and `detoxlens log` then adds them.",
            err=True,
        )


@app.command(rich_help_panel=TOOLS)
def store() -> None:
    """Make MLflow's store for this project, if there is none, and say where it is."""
    from detoxlens.tracking import prepare_store, resolve_store

    tracking = resolve_store(Context.project(), os.environ)
    prepare_store(tracking)
    typer.echo(tracking.shown_uri)
