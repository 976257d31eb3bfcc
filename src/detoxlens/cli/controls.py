"""`detoxlens noise-floor`: a control that no stage makes."""

from __future__ import annotations

from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, ModelOption, app


@app.command(rich_help_panel=TOOLS)
def noise_floor(
    model: ModelOption,
    seed: Annotated[int, typer.Option(min=0, help="Of the other training; not run.seed.")] = 1,
) -> None:
    """Train an embedded base model once more with another seed: how far apart are two that nobody detoxified?"""
    from detoxlens.params.load import load_params
    from detoxlens.pipeline.noise_floor import noise_floor as measure

    path = measure(Context.root, load_params(Context.root / Context.params_path), model, seed=seed)
    typer.echo(f"Wrote {path}. `dvc repro report` shows it in the trust box.")
