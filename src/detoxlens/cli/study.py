"""`detoxlens study`: a whole study by one command."""

from __future__ import annotations

from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app


@app.command(rich_help_panel=TOOLS)
def study(
    name: Annotated[str, typer.Argument(help="A file in presets/studies without .yaml, e.g. smollm2.")],
    seeds: Annotated[
        int, typer.Option(min=1, help="Of each variant that is trained; placebos and what is not trained have one.")
    ] = 1,
    only_prepare: Annotated[
        bool, typer.Option("--only-prepare", help="Fetch what is missing, show the forecast, and stop.")
    ] = False,
) -> None:
    """Run a whole study in a checkout of its own, and file its numbers under reports/studies; resumes after a kill."""
    from rich.console import Console

    from detoxlens.params.load import load_params
    from detoxlens.plan.command import plan
    from detoxlens.plan.terminal import show
    from detoxlens.study.command import prepare_study, run_study

    folder = prepare_study(Context.root, name, num_seeds=seeds)
    params = folder / "params.yaml"
    console = Console(highlight=False)
    show(plan(folder, params, parameters={}), console, device=load_params(params).run.device)
    if not only_prepare:
        console.print(f"Results: {run_study(Context.root, name, folder, num_seeds=seeds)}")
