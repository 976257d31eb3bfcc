"""The `detoxlens` command: one sub-command per stage, plus the tools. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from detoxlens import __version__

app = typer.Typer(
    name="detoxlens",
    help="What detoxification does to a language model: train, sample, score, attribute, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench_app = typer.Typer(help="Measure this machine: the pipeline, and attribution against Inseq.", no_args_is_help=True)
STAGES = "Stages of the pipeline (dvc repro runs them)"
TOOLS = "Tools"
NOISE = ("`is_gradient_checkpointing` is deprecated",)
"""Warnings of one library at another that a user can do nothing about (peft 0.21 at transformers 5.23)."""
sweep_app = typer.Typer(
    help="Search LoRA and training settings with Optuna; `sweep apply` writes a trial's into params.yaml.",
    invoke_without_command=True,
)
app.add_typer(bench_app, name="bench", rich_help_panel=TOOLS)
app.add_typer(sweep_app, name="sweep", rich_help_panel=TOOLS)
INTERRUPTED = 130
"""Exit code of Ctrl-C; Typer turns the KeyboardInterrupt into it."""

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


@app.callback()
def options(
    root: Annotated[Path, typer.Option(help="The project's root.")] = Path(),
    params: Annotated[Path, typer.Option(help="Parameters, relative to the root.")] = Path("params.yaml"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the run to MLflow.")] = True,
) -> None:
    Context.root, Context.params_path, Context.debug, Context.track = root.resolve(), params, debug, track
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("detoxlens").setLevel(logging.INFO)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def _stage(name: str, *, model: str | None = None, variant: str | None = None) -> None:
    """Checks all of params.yaml, then runs one stage, tracked."""
    from detoxlens.run_stage import run_stage

    run_stage(Context.root, Context.root / Context.params_path, name, model=model, variant=variant, track=Context.track)


@app.command(rich_help_panel=STAGES)
def prepare() -> None:
    """Read dialogues and prompts, split them, write data/prepared."""
    _stage("prepare")


@app.command(rich_help_panel=STAGES)
def reward_model() -> None:
    """Train the embedded reward classifier, or pin a hub one, into models/reward."""
    _stage("reward_model")


@app.command(rich_help_panel=STAGES)
def base(model: ModelOption) -> None:
    """Train an embedded base model, or pin a hub model's revision."""
    _stage("base", model=model)


@app.command(rich_help_panel=STAGES)
def finetune(model: ModelOption, variant: VariantOption) -> None:
    """Fine-tune a LoRA adapter on counter-narratives."""
    _stage("finetune", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def rl(model: ModelOption, variant: VariantOption) -> None:
    """Train a LoRA adapter by PPO against the reward classifier."""
    _stage("rl", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def generate(model: ModelOption, variant: VariantOption) -> None:
    """Sample completions of the evaluation prompts."""
    _stage("generate", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def score(model: ModelOption, variant: VariantOption) -> None:
    """Grade the completions' toxicity and fluency."""
    _stage("score", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def attribute(model: ModelOption, variant: VariantOption) -> None:
    """Attribute every generated token to the prompt."""
    _stage("attribute", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Write Table 1, Figure 1, metrics and the page into reports/."""
    _stage("report")


@app.command(rich_help_panel=TOOLS)
def sample(
    folder: Annotated[Path, typer.Option(help="Where to write dialogues.csv and prompts.jsonl.")] = Path("data/sample"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generator; the committed files are seed 0.")] = 0,
) -> None:
    """Regenerate the embedded sample data."""
    from detoxlens.artifacts import write_text
    from detoxlens.data.sample import dialogues_csv, prompts_jsonl

    target = Context.root / folder
    write_text(target / "dialogues.csv", dialogues_csv(seed))
    write_text(target / "prompts.jsonl", prompts_jsonl(seed))
    typer.echo(f"Wrote {folder}/dialogues.csv and {folder}/prompts.jsonl (seed {seed}).")


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
    from detoxlens.project import repro as run_pipeline

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
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Open MLflow's pages on this project's runs."""
    from detoxlens.project import ui as serve

    raise typer.Exit(serve(Context.root, host=host, port=port))


@app.command(rich_help_panel=TOOLS)
def log() -> None:
    """Write the report's runs into MLflow, e.g. after `dvc pull` in a fresh clone."""
    from detoxlens.config import load_params
    from detoxlens.run_stage import publish_runs
    from detoxlens.tracking import resolve_store

    publish_runs(Context.root, load_params(Context.root / Context.params_path), resolve_store(Context.root, os.environ))


@app.command(rich_help_panel=TOOLS)
def store() -> None:
    """Make MLflow's store for this project, if there is none, and say where it is."""
    from detoxlens.tracking import prepare_store, resolve_store

    tracking = resolve_store(Context.root, os.environ)
    prepare_store(tracking)
    typer.echo(tracking.shown_uri)


@app.command(rich_help_panel=TOOLS)
def explain(
    checkpoint: Annotated[
        str,
        typer.Option(help="Folder of a variant (adapters/<model>/<variant>), model or PEFT adapter; or a hub id."),
    ],
    prompt: Annotated[str, typer.Option(help="What the model is asked.")],
    completion: Annotated[str | None, typer.Option(help="What it answers; sampled when left out.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Model in params.yaml whose chat template to use; default: the one the folder belongs to."),
    ] = None,
    no_template: Annotated[bool, typer.Option("--no-template", help="Give the model the prompt as it is.")] = False,
    method: Annotated[
        str, typer.Option(help="input_x_gradient, saliency, integrated_gradients, occlusion, value_zeroing, attention.")
    ] = "input_x_gradient",
    target: Annotated[
        str, typer.Option(help="probability, log_probability, or contrastive (against the likeliest other token).")
    ] = "probability",
    html: Annotated[Path | None, typer.Option(help="Write the heat map to this HTML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores as Inseq's JSON, for its viewer.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest sample, in tokens.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sample; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Of the sample; 0 keeps all tokens.")] = 50,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Of the sample; 1 keeps all tokens.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's own Python code from the hub.")
    ] = False,
) -> None:
    """Show what each generated token drew on: a coloured table, and a heat map in a file."""
    from detoxlens.config import load_params
    from detoxlens.explain.explanation import NO_TEMPLATE, check_choices, explain, find_checkpoint, find_template
    from detoxlens.explain.page import page
    from detoxlens.explain.terminal import print_explanation
    from detoxlens.models.config import GenerationConfig

    check_choices(method=method, target=target, dtype=dtype, device=device, json=json, html=html)
    params_path = Context.root / Context.params_path
    chat = NO_TEMPLATE
    if not no_template:
        params = load_params(params_path) if params_path.exists() else None
        chat = find_template(params, checkpoint, template)
    found = explain(
        Context.root,
        checkpoint=checkpoint,
        ref=find_checkpoint(Context.root, checkpoint, revision=revision),
        template=chat,
        prompt=prompt,
        completion=completion,
        method=method,
        target=target,
        generation=GenerationConfig(
            max_new_tokens=max_new_tokens,
            min_new_tokens=1,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            no_repeat_ngram_size=0,
            num_samples=1,
            batch_size=1,
        ),
        seed=seed,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    print_explanation(found)
    if html is not None:
        from detoxlens.artifacts import write_text

        write_text(html, page(found))
        typer.echo(f"Wrote {html}")
    if json is not None:
        from detoxlens.attribution.inseq_backend import write_inseq_json

        write_inseq_json(
            json,
            scores=found.scores,
            prompt_ids=found.prompt_ids,
            completion_ids=found.completion_ids,
            pieces=(*found.prompt_pieces, *found.completion_pieces),
            token_prob=found.token_prob,
            method=method,
        )
        typer.echo(f"Wrote {json}")


@bench_app.command("pipeline")
def bench_pipeline(
    working_tree: Annotated[
        bool, typer.Option("--working-tree", help="The files as they are here, not as last committed.")
    ] = False,
) -> None:
    """Time a cold dvc repro in a fresh clone, a second one that has nothing to do, and --help."""
    from detoxlens.bench.pipeline import bench_pipeline as run_bench

    run_bench(Context.root, working_tree=working_tree)


@bench_app.command("attribution")
def bench_attribution(
    repetitions: Annotated[int, typer.Option(min=1, help="Pairs of measurements per case; the median counts.")] = 5,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 2,
) -> None:
    """Time our attribution and Inseq's on the same models and texts."""
    from detoxlens.bench.attribution import bench_attribution as run_bench

    run_bench(Context.root, Context.root / Context.params_path, num_repetitions=repetitions, num_threads=num_threads)


@sweep_app.callback()
def sweep(
    context: typer.Context,
    method: Annotated[str, typer.Option(help="finetune or ppo.")] = "ppo",
    models: Annotated[
        str, typer.Option(help="Comma-separated model keys; 'unchanged' takes run.models.")
    ] = "unchanged",
    variant: Annotated[str | None, typer.Option(help="Which variant; default: the first the method trains.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials the study is to have in the end.")] = 24,
    study: Annotated[
        str | None, typer.Option(help="Study to begin, go on with or join; default: method-models.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="sqlite:///FILE, journal:FILE, postgresql://...; default: .detoxlens/optuna.db."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    join: Annotated[bool, typer.Option("--join", help="Only work on the study; another process reports.")] = False,
) -> None:
    """Search LoRA and training settings with Optuna; `sweep apply` writes a trial's into params.yaml."""
    if context.invoked_subcommand is not None:
        return
    from detoxlens.errors import UserError, did_you_mean
    from detoxlens.sweep.config import METHODS

    if method not in METHODS:
        allowed = ", ".join(METHODS)
        raise UserError(f"--method {method!r} is not known.{did_you_mean(method, METHODS)} Allowed: {allowed}.")
    from detoxlens.sweep.command import sweep as run_sweep

    folder = run_sweep(
        Context.root,
        Context.root / Context.params_path,
        method=method,
        models=[] if models == "unchanged" else [name.strip() for name in models.split(",") if name.strip()],
        variant=variant,
        num_trials=trials,
        study=study,
        storage=storage,
        num_workers=workers,
        join=join,
        track=Context.track,
    )
    if folder is not None:
        typer.echo((folder / "reading.md").read_text(encoding="utf-8").split("\n\n")[1])
        typer.echo(f"Tables and figures: {folder}")


@sweep_app.command("apply")
def sweep_apply(
    study: Annotated[str, typer.Option(help="The study.")],
    trial: Annotated[int, typer.Option(min=0, help="Number of a complete trial.")],
    storage: Annotated[str | None, typer.Option(help="Where the study is; default: .detoxlens/optuna.db.")] = None,
) -> None:
    """Write a trial's point into params.yaml; then `dvc repro` finds its validation metrics again."""
    from detoxlens.sweep.apply import apply_trial

    path = Context.root / Context.params_path
    diff, stale = apply_trial(Context.root, path, study=study, number=trial, url=storage)
    typer.echo(diff or f"{path.name} has this point already.")
    if stale:
        typer.echo(f"Other things changed since, so the numbers will differ: {'; '.join(stale)}.", err=True)
    typer.echo("Next: dvc repro", err=True)


BootstrapOption = Annotated[int, typer.Option("--bootstrap", min=100, help="Draws behind every interval.")]
FormatOption = Annotated[
    str, typer.Option(help="plain, or rewardlm (the published study's files); columns can still be named.")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(help="prompt=..,completion=..,toxicity=..,prompt_score=..,prompt_id=..,sample_index=.."),
]


@app.command(rich_help_panel=TOOLS)
def import_completions(
    file: Annotated[Path, typer.Argument(help="Completions made elsewhere: .csv, .jsonl or .parquet.")],
    model: Annotated[str, typer.Option("--model", "-m", help="File them under this model.")],
    variant: Annotated[str, typer.Option("--variant", "-v", help="File them under this variant.")],
    format: FormatOption = "plain",
    columns: ColumnsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace completions that are there.")] = False,
) -> None:
    """Take completions made elsewhere, and their recorded scores, into outputs/."""
    from detoxlens.replay.commands import import_completions as take_in

    typer.echo(take_in(Context.root, file, model=model, variant=variant, format=format, columns=columns, force=force))


@app.command(rich_help_panel=TOOLS)
def replay(
    files: Annotated[list[str], typer.Argument(help="it=FILE ft=FILE ...: each variant's completions with scores.")],
    name: Annotated[str, typer.Option(help="Of the result: reports/replay/<name>.json and .md.")] = "table",
    format: FormatOption = "plain",
    columns: ColumnsOption = None,
    bootstrap: BootstrapOption = 2000,
) -> None:
    """Recompute a published toxicity table, with and without counting unscored completions as not toxic."""
    from detoxlens.evaluation.config import Bootstrap
    from detoxlens.replay.commands import replay_files

    draws = Bootstrap(num_resamples=bootstrap, seed=0)
    typer.echo(replay_files(Context.root, files, name=name, format=format, columns=columns, bootstrap=draws))


@app.command(rich_help_panel=TOOLS)
def calibrate(
    scorer: Annotated[str, typer.Option(help="As in params.yaml's toxicity.scorers, e.g. profanity_check.")],
    against: Annotated[list[Path], typer.Option(help="Recorded scores: .csv, .jsonl or .parquet; repeatable.")],
    text_column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    score_column: Annotated[str, typer.Option(help="Column of the recorded scores, 0..1.")] = "toxicity",
    bootstrap: BootstrapOption = 500,
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")] = "cpu",
) -> None:
    """Say how well a scorer stands in for recorded scores, e.g. Perspective's."""
    from detoxlens.calibrate.command import calibrate_scorer, summary
    from detoxlens.evaluation.config import Bootstrap

    found, path = calibrate_scorer(
        Context.root,
        scorer,
        against,
        text_column=text_column,
        score_column=score_column,
        device=device,
        bootstrap=Bootstrap(num_resamples=bootstrap, seed=0),
    )
    typer.echo(f"{summary(found)}\nWrote {path}")


@app.command(rich_help_panel=TOOLS)
def export_scores(
    file: Annotated[Path, typer.Argument(help="A .jsonl file to write; `recorded:FILE` reads it.")],
    scorer: Annotated[str, typer.Option(help="Only this scorer's, e.g. perspective.")],
) -> None:
    """Write the cached scores of a remote service, by hash of the text, so that others can do without the service."""
    from detoxlens.scorers import export_scores as export

    typer.echo(f"Wrote {export(Context.root, file, scorer)} scores to {file}.")


@app.command(rich_help_panel=TOOLS)
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point: one paragraph and a non-zero exit instead of a traceback."""
    # Torch reads these when it loads. A waiting thread that spins costs 2-8 times where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours show an ETA
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # without a network it tells of every retry, 20 lines of them
    sys.dont_write_bytecode = False  # without bytecode every stage would compile torch and transformers anew
    try:
        app()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _fail("Interrupted. What was finished is kept; the same command goes on from there.", INTERRUPTED)
        raise
    except Exception as error:  # the last line of defence: every error becomes one paragraph
        if Context.debug:
            raise
        from detoxlens.errors import UserError

        if isinstance(error, UserError):
            _fail(str(error), 2)
        _fail(_unexpected(error), 1)


def _unexpected(error: Exception) -> str:
    """What is said of an error nobody foresaw; its traceback goes into the state folder."""
    import traceback

    log = Context.root / ".detoxlens" / "last-error.txt"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return f"{type(error).__name__}: {error} (run again with --debug for the traceback)"
    return f"Unexpected {type(error).__name__}: {error} The traceback is in {log}; `detoxlens --debug ...` shows it."


def _fail(message: str, code: int) -> None:
    print(f"detoxlens: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
