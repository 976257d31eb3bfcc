"""The program and the options before the sub-command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detoxlens import __version__
from detoxlens.common.console import set_up_console

app = typer.Typer(
    name="detoxlens",
    help="What detoxification does to a language model: train, sample, score, attribute, report.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
STAGES = "Stages of the pipeline (dvc repro runs them)"
TOOLS = "Tools"

ModelOption = Annotated[str, typer.Option("--model", "-m", help="A key of params.yaml's models.")]
VariantOption = Annotated[
    str, typer.Option("--variant", "-v", help="A key of params.yaml's variants, e.g. it, ft, rl.")
]


class Context:
    """The options before the sub-command."""

    root = Path()
    params_path = Path("params.yaml")
    debug = False
    track = True


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    root: Annotated[Path, typer.Option(help="The project's root.")] = Path(),
    params: Annotated[Path, typer.Option(help="Parameters, relative to the root.")] = Path("params.yaml"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the run to MLflow.")] = True,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    Context.root, Context.params_path, Context.debug, Context.track = root.resolve(), params, debug, track
    set_up_console()
