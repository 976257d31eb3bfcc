"""The program and the options before the sub-command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detoxlens import __version__
from detoxlens.cli.typer_app import App
from detoxlens.common.console import set_up_console

app = App(
    name="detoxlens",
    help="What detoxification does to a language model: train, sample, score, attribute, report.",
    no_args_is_help=True,
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

    @classmethod
    def project(cls) -> Path:
        """The root, which must be a project's: for commands that write where they stand.

        Raises:
            UserError: there is no params.yaml.
        """
        from detoxlens.common.errors import UserError

        if (cls.root / cls.params_path).is_file():
            return cls.root
        above = next((folder for folder in cls.root.parents if (folder / cls.params_path).is_file()), None)
        remedy = f"Go to {above}, or give --root {above} before the command." if above else "Go to one, or give --root."
        raise UserError(f"{cls.root} is no detoxlens project: it holds no {cls.params_path}. {remedy}")


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
