"""One command per stage of the pipeline."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from detoxlens.cli.app import STAGES, Context, ModelOption, VariantOption, app

ENGINES = ("local", "ray")
SHARES = "Several processes at one stage"
ShareOption = Annotated[
    str | None,
    typer.Option(
        help="Do one of several shares of the work, e.g. 0/4, or 'auto' under torchrun, accelerate or srun. The "
        "same command without it puts the shares together and does what they left.",
        rich_help_panel=SHARES,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        help="local, or ray: all shares, put together, as tasks of the cluster in RAY_ADDRESS, or of one started here.",
        envvar="DETOXLENS_ENGINE",
        rich_help_panel=SHARES,
    ),
]
SharesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many, on Ray; default: what it runs at once.",
        envvar="DETOXLENS_SHARES",
        rich_help_panel=SHARES,
    ),
]
CpusOption = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="On Ray; default: run.num_threads.", envvar="DETOXLENS_CPUS_PER_SHARE", rich_help_panel=SHARES
    ),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="On Ray; .25: four on a GPU; default: 1 where run.device is cuda, else 0.",
        envvar="DETOXLENS_GPUS_PER_SHARE",
        rich_help_panel=SHARES,
    ),
]


def _stage(name: str, *, model: str | None = None, variant: str | None = None) -> None:
    """Checks all of params.yaml, then runs one stage, tracked."""
    from detoxlens.pipeline.run_stage import run_stage

    run_stage(Context.root, Context.root / Context.params_path, name, model=model, variant=variant, track=Context.track)


def _shared_stage(
    name: str,
    model: str,
    variant: str,
    *,
    share: str | None,
    engine: str,
    shares: int | None,
    cpus: float | None,
    gpus: float | None,
) -> None:
    """`_stage`, a share of it, or all shares on Ray."""
    from detoxlens.common.errors import UserError, did_you_mean

    if engine not in ENGINES:
        raise UserError(
            f"--engine {engine!r} (or DETOXLENS_ENGINE) is not known.{did_you_mean(engine, ENGINES)} "
            f"Allowed: {', '.join(ENGINES)}."
        )
    if engine == "local" and (shares or cpus or gpus):
        raise UserError(
            "--shares, --cpus-per-share and --gpus-per-share (or DETOXLENS_SHARES, ...) are for --engine ray; without "
            "Ray each process is given its own part, e.g. --share 0/4."
        )
    if share is not None and engine == "ray":
        raise UserError(
            f"--share {share} and --engine ray: Ray gives out the shares itself; leave --share out and say how many "
            "with --shares, or unset DETOXLENS_ENGINE."
        )
    params_path = Context.root / Context.params_path
    if share is not None:
        from detoxlens.jobs.shares import parse_share
        from detoxlens.pipeline.run_stage import run_share

        run_share(Context.root, params_path, name, model=model, variant=variant, share=parse_share(share, os.environ))
        return
    if engine == "local":
        _stage(name, model=model, variant=variant)
        return
    from detoxlens.jobs.cluster import resources_of
    from detoxlens.params.load import load_params
    from detoxlens.pipeline.on_ray import RayShares
    from detoxlens.pipeline.run_stage import run_stage

    run = load_params(params_path).run
    resources = resources_of(cpus, gpus, num_threads=run.num_threads, device=run.device)
    run_stage(
        Context.root,
        params_path,
        name,
        model=model,
        variant=variant,
        track=Context.track,
        ray=RayShares(count=shares, resources=resources),
    )


@app.command(rich_help_panel=STAGES)
def code() -> None:
    """Check all of params.yaml, and write code/<stage>.txt: the modules that each stage's numbers depend on."""
    from detoxlens.common.errors import UserError
    from detoxlens.params.check import load_checked
    from detoxlens.pipeline.code import write_code

    try:
        load_checked(Context.root / Context.params_path)
    except UserError as e:
        raise UserError(
            f"{e} No result was touched: correct it and run the same command again; `git checkout . && dvc checkout` "
            "drops every change since the commit."
        ) from None
    write_code(Context.root)


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
def rejection(model: ModelOption, variant: VariantOption) -> None:
    """Fine-tune a LoRA adapter on the base model's own least toxic answers."""
    _stage("rejection", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def rl(model: ModelOption, variant: VariantOption) -> None:
    """Train a LoRA adapter by PPO, RLOO or GRPO against the reward classifier; torchrun may start several."""
    _stage("rl", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def preference(model: ModelOption, variant: VariantOption) -> None:
    """Make pairs of answers, and train a LoRA adapter on them by DPO or KTO."""
    _stage("preference", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def intervene(model: ModelOption, variant: VariantOption) -> None:
    """Make a variant without training: a system message, steering, or DExperts."""
    _stage("intervene", model=model, variant=variant)


def _add_shareable(name: str, help: str) -> None:
    """The command of a stage that several processes may share."""

    @app.command(name, help=help, rich_help_panel=STAGES)
    def command(
        model: ModelOption,
        variant: VariantOption,
        share: ShareOption = None,
        engine: EngineOption = "local",
        shares: SharesOption = None,
        cpus_per_share: CpusOption = None,
        gpus_per_share: GpusOption = None,
    ) -> None:
        _shared_stage(
            name, model, variant, share=share, engine=engine, shares=shares, cpus=cpus_per_share, gpus=gpus_per_share
        )


_add_shareable("generate", "Sample completions of the evaluation prompts.")
_add_shareable("score", "Grade the completions' toxicity and fluency.")
_add_shareable("attribute", "Attribute every generated token to the prompt.")


@app.command(rich_help_panel=STAGES)
def interpolate(model: ModelOption, variant: VariantOption) -> None:
    """Apply a variant's adapter at several strengths: toxicity against prompt use and fluency."""
    _stage("interpolate", model=model, variant=variant)


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Write Table 1, Figure 1, metrics and the page into reports/."""
    _stage("report")
