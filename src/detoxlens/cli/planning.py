"""`detoxlens plan`: what the params will cost here."""

from __future__ import annotations

from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app


@app.command(rich_help_panel=TOOLS)
def plan(
    parameters: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=NUMBER, e.g. redpajama-3b=2.8e9, for a model whose config is not here; repeatable."),
    ] = None,
) -> None:
    """Forecast hours, memory, disk and API calls of the current params on this machine, from a short measurement."""
    from rich.console import Console

    from detoxlens.common.errors import UserError
    from detoxlens.params.load import load_params
    from detoxlens.plan.command import plan as forecast
    from detoxlens.plan.terminal import show

    given: dict[str, float] = {}
    for pair in parameters or ():
        model, _, number = pair.partition("=")
        try:
            given[model] = float(number)
        except ValueError:
            given[model] = 0.0
        if not (model and 1e3 <= given[model] < 1e15):
            raise UserError(
                f"--parameters {pair!r} is not of the form <model>=<number of parameters>, e.g. redpajama-3b=2.8e9."
            )
    path = Context.root / Context.params_path
    show(forecast(Context.root, path, parameters=given), Console(highlight=False), device=load_params(path).run.device)
