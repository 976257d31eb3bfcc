"""`detoxlens noise-floor` and `overlap`: controls that no stage makes."""

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


@app.command(rich_help_panel=TOOLS)
def overlap(
    texts: Annotated[str, typer.Argument(help="CSV of texts: a path, or an address.")],
    column: Annotated[str, typer.Option(help="Of the texts.")] = "HATE_SPEECH",
    dialogues: Annotated[
        str | None, typer.Option(help="In DialoCONAN's format; default: data.dialoconan of params.yaml.")
    ] = None,
) -> None:
    """Count the texts of a file that stand among the hater's turns of dialogues: prompts that training would know."""
    from detoxlens.data.overlap import overlap_of_files
    from detoxlens.params.data import DataConfig
    from detoxlens.params.load import load_params

    if dialogues is None:
        dialogues = load_params(Context.root / Context.params_path).section("data", DataConfig).dialoconan
    found = overlap_of_files(Context.root, texts, column, dialogues)
    verbatim, near = (
        f"{num:,} ({100 * num / found.num_texts:.1f} %)" for num in (found.num_verbatim, found.num_near_copies)
    )
    typer.echo(
        f"Of {found.num_texts:,} distinct texts in {column}, {verbatim} stand verbatim among the hater's turns of "
        f"{dialogues}, but for case and white space; of {near} at least half of the word 5-grams do."
    )
