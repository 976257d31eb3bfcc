"""`detoxlens audit`: people's labels of completions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, ModelOption, app


@app.command(rich_help_panel=TOOLS)
def audit(
    model: ModelOption,
    read: Annotated[Path | None, typer.Option(help="A labelled sheet: compare it with the grader.")] = None,
    num: Annotated[int, typer.Option(min=4, help="Completions on the sheet, over all variants.")] = 150,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
) -> None:
    """Write a blinded sheet of completions for people to label, or compare a labelled one with the grader."""
    from detoxlens.audit.command import make_sheet, read_sheet
    from detoxlens.params.load import load_params

    params = load_params(Context.root / Context.params_path)
    params.model(model)
    message = (
        read_sheet(Context.root, params, model, read)
        if read
        else make_sheet(Context.root, params, model, num=num, seed=seed)
    )
    typer.echo(message)
