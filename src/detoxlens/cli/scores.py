"""Commands on completions and scores made elsewhere: import, replay, calibrate, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app

BootstrapOption = Annotated[int, typer.Option("--bootstrap", min=100, help="Draws behind every interval.")]
FormatOption = Annotated[
    str, typer.Option(help="plain, or rewardlm (the published study's files); columns can still be named.")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(help="prompt=..,completion=..,toxicity=..,prompt_score=..,prompt_id=..,sample_index=.."),
]
SplitOption = Annotated[
    str | None, typer.Option(help="Set of prompts that the completions are about, e.g. conan; default: by the format.")
]


@app.command(rich_help_panel=TOOLS)
def import_completions(
    file: Annotated[Path, typer.Argument(help="Completions made elsewhere: .csv, .jsonl or .parquet.")],
    model: Annotated[str, typer.Option("--model", "-m", help="File them under this model.")],
    variant: Annotated[str, typer.Option("--variant", "-v", help="File them under this variant.")],
    format: FormatOption = "plain",
    columns: ColumnsOption = None,
    split: SplitOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace completions that are there.")] = False,
) -> None:
    """Take completions made elsewhere, and their recorded scores, into outputs/."""
    from detoxlens.recorded.imports import import_completions as take_in

    summary = take_in(
        Context.root, file, model=model, variant=variant, format=format, columns=columns, split=split, force=force
    )
    typer.echo(summary)


@app.command(rich_help_panel=TOOLS)
def replay(
    files: Annotated[list[str], typer.Argument(help="it=FILE ft=FILE ...: each variant's completions with scores.")],
    name: Annotated[str, typer.Option(help="Of the result: reports/replay/<name>.json and .md.")] = "table",
    format: FormatOption = "plain",
    columns: ColumnsOption = None,
    split: SplitOption = None,
    missing: Annotated[
        str | None,
        typer.Option(
            help="What a completion without a score counts as: exclude, or non_toxic as in the paper; the other is "
            "shown beside it. Default: params.yaml's toxicity.missing."
        ),
    ] = None,
    bootstrap: BootstrapOption = 2000,
) -> None:
    """Recompute a published toxicity table, by either rule for completions without a score."""
    from detoxlens.common.errors import UserError, did_you_mean
    from detoxlens.params.load import load_params
    from detoxlens.params.report import Bootstrap
    from detoxlens.params.toxicity import ToxicityConfig
    from detoxlens.recorded.imports import replay_files
    from detoxlens.recorded.replay import RULES

    params_path = Context.root / Context.params_path
    if missing is None:
        has_params = params_path.exists()
        missing = load_params(params_path).section("toxicity", ToxicityConfig).missing if has_params else "exclude"
    if missing not in RULES:
        raise UserError(
            f"--missing {missing!r} is not known.{did_you_mean(missing, RULES)} Allowed: {', '.join(RULES)}."
        )
    draws = Bootstrap(num_resamples=bootstrap, seed=0)
    typer.echo(
        replay_files(
            Context.root,
            files,
            name=name,
            format=format,
            columns=columns,
            split=split,
            bootstrap=draws,
            missing=missing,
        )
    )


@app.command(rich_help_panel=TOOLS)
def calibrate(
    scorer: Annotated[str, typer.Option(help="As in params.yaml's toxicity.scorers, e.g. profanity_check.")],
    against: Annotated[list[Path], typer.Option(help="Recorded scores: .csv, .jsonl or .parquet; repeatable.")],
    text_column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    score_column: Annotated[str, typer.Option(help="Column of the recorded scores, 0..1.")] = "toxicity",
    split_column: Annotated[
        str | None, typer.Option(help="Measure its values apart; numbers from 0 to 1 are parted at .5.")
    ] = None,
    bootstrap: BootstrapOption = 500,
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")] = "cpu",
) -> None:
    """Say how well a scorer stands in for recorded scores, e.g. Perspective's."""
    from detoxlens.params.report import Bootstrap
    from detoxlens.recorded.calibrate import calibrate_scorer, summary
    from detoxlens.scorers import make_scorer

    found, path = calibrate_scorer(
        Context.root,
        partial(make_scorer, scorer, root=Context.root, device=device),
        against,
        text_column=text_column,
        score_column=score_column,
        split_column=split_column,
        bootstrap=Bootstrap(num_resamples=bootstrap, seed=0),
    )
    typer.echo(f"{summary(found)}\nWrote {path}")
    typer.echo(f"To apply it: copy it into data/recorded, set toxicity.calibration: data/recorded/{path.name}")


@app.command(rich_help_panel=TOOLS)
def distil(
    name: Annotated[str, typer.Argument(help="Of the scorer folder: data/recorded/scorers/<name>.")],
    against: Annotated[list[Path], typer.Option(help="Recorded scores: .csv, .jsonl or .parquet; repeatable.")],
    format: FormatOption = "plain",
    text_column: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="attribute=column, e.g. toxicity=TOXICITY; repeatable, the first one is measured."),
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option(help="Column of the prompts; texts of one prompt are held out together.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and order.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; bytes depend on it.")] = 2,
    bootstrap: BootstrapOption = 500,
) -> None:
    """Train a small classifier on recorded scores, as a stand-in for the scorer that made them."""
    from detoxlens.params.report import Bootstrap
    from detoxlens.recorded.distil import columns_of
    from detoxlens.recorded.distil import distil as train

    columns = columns_of(format, text=text_column, prompt=prompt_column, scores=score or [])
    draws = Bootstrap(num_resamples=bootstrap, seed=0)
    typer.echo(train(Context.root, against, columns, name=name, seed=seed, num_threads=threads, bootstrap=draws))


@app.command(rich_help_panel=TOOLS)
def annotate(
    file: Annotated[Path, typer.Argument(help="Prompts as JSON lines in RealToxicityPrompts' form.")],
    out: Annotated[Path, typer.Argument(help="The JSON lines with the new field, for data.rtp or a split's source.")],
    scorer: Annotated[str, typer.Option(help="As in params.yaml's toxicity.scorers.")],
    field: Annotated[str, typer.Option(help="Name of the new field.")] = "reward_hate_prob",
    text: Annotated[str, typer.Option(help="What is scored: prompt, or prompt+continuation.")] = "prompt+continuation",
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")] = "cpu",
) -> None:
    """Add a scorer's toxicity of each prompt as a field that splits can filter on."""
    from detoxlens.recorded.annotate import annotate as add_field
    from detoxlens.scorers import make_scorer

    load = partial(make_scorer, scorer, root=Context.root, device=device)
    num = add_field(file, out, scorer=load, field=field, text=text)
    typer.echo(f"Wrote {num} prompts with {field} to {out}.")


@app.command(rich_help_panel=TOOLS)
def export_scores(
    file: Annotated[Path, typer.Argument(help="A .jsonl file to write; `recorded:FILE` reads it.")],
    scorer: Annotated[str, typer.Option(help="Only this scorer's, e.g. perspective.")],
) -> None:
    """Write the cached scores of a remote service, by hash of the text, so that others can do without the service."""
    from detoxlens.scorers import export_scores as export

    typer.echo(f"Wrote {export(Context.root, file, scorer)} scores to {file}.")
