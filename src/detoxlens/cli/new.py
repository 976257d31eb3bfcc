"""`detoxlens init` and `detoxlens schema`: a study of one's own, and what its params.yaml may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app
from detoxlens.common.errors import UserError


@app.command(rich_help_panel=TOOLS)
def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="NAME=SOURCE: a folder, hub id, gguf:<path>. Default: the embedded models."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your prompts: a CSV, or JSON lines like RealToxicityPrompts'.")
    ] = None,
    prompt_column: Annotated[str, typer.Option(help="Column of the CSV that holds them.")] = "prompt",
    scorer: Annotated[str | None, typer.Option(help="Your grader, e.g. hf:<id or folder>#<label>.")] = None,
) -> None:
    """Write a new study into FOLDER: dvc.yaml, params.yaml and what they need; `dvc repro` there runs it."""
    from detoxlens.study.new import new_study

    models = dict(_named(text) for text in model or ())
    new_study(folder, models=models, prompts=prompts, column=prompt_column, scorer=scorer)
    typer.echo(
        f"A new study is in {folder}. What changes a number is in params.yaml; the dialogues are the embedded sample's "
        "until data.dialoconan names yours.\n\n"
        f"    cd {folder}\n    detoxlens plan        # hours, memory and disk on this machine\n    dvc repro"
    )


def _named(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise UserError(f"--model={text}: write NAME=SOURCE, e.g. --model my-model=/path/to/checkpoint.")
    return name, source


@app.command(rich_help_panel=TOOLS)
def schema(
    write: Annotated[bool, typer.Option("--write", help="Into params.schema.json, where editors find it.")] = False,
) -> None:
    """Print the JSON schema of params.yaml: what each key means and may be."""
    from detoxlens.common.artifacts import write_text
    from detoxlens.params.schema import params_schema

    text = json.dumps(params_schema(), indent=1, ensure_ascii=False) + "\n"
    if write:
        write_text(Context.root / "params.schema.json", text)
        typer.echo("Wrote params.schema.json.")
    else:
        typer.echo(text, nl=False)
