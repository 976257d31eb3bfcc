"""One command per stage of the pipeline."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from detoxlens.cli.app import STAGES, Context, ModelOption, VariantOption, app


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
    """Train a LoRA adapter by PPO, RLOO or GRPO against the reward classifier; torchrun may start several."""
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
def attribute(
    model: ModelOption,
    variant: VariantOption,
    share: Annotated[
        str | None,
        typer.Option(
            help="Do one of several shares of the work, e.g. 0/4, or 'auto' under torchrun, accelerate or srun. The "
            "same command without it puts the shares together and does what they left.",
        ),
    ] = None,
) -> None:
    """Attribute every generated token to the prompt."""
    if share is None:
        _stage("attribute", model=model, variant=variant)
        return
    from detoxlens.run_stage import run_share
    from detoxlens.shares import parse_share

    params = Context.root / Context.params_path
    run_share(Context.root, params, "attribute", model=model, variant=variant, share=parse_share(share, os.environ))


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Write Table 1, Figure 1, metrics and the page into reports/."""
    _stage("report")
