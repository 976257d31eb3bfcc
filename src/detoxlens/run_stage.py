"""What surrounds a stage: all of params.yaml is checked first, then the stage runs inside its MLflow run."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.artifacts import Layout, read_history, read_json, read_rows
from detoxlens.config import Params, load_params
from detoxlens.errors import UserError
from detoxlens.records import Completion, Score
from detoxlens.shares import Share

if TYPE_CHECKING:
    from detoxlens.tracking import Store

log = logging.getLogger(__name__)
SECTIONS_OF = {
    "prepare": ("data", "splits"),
    "reward_model": ("reward_model",),
    "base": ("tiny",),
    "finetune": ("lora", "sft"),
    "rl": ("lora", "ppo", "generation", "toxicity", "reward_model"),
    "generate": ("generation",),
    "score": ("toxicity",),
    "attribute": ("attribution",),
    "report": ("report", "toxicity"),
}
STAGES = tuple(SECTIONS_OF)
TRAINING = ("reward_model", "base", "finetune", "rl")


def section_classes() -> dict[str, type]:
    """Params section -> the class that validates it; the modules named here import nothing heavy."""
    from detoxlens.attribution.config import AttributionConfig
    from detoxlens.data.config import DataConfig, SplitsConfig
    from detoxlens.models.config import GenerationConfig
    from detoxlens.models.lora import LoraConfig
    from detoxlens.models.reward_config import RewardModelConfig
    from detoxlens.models.tiny import TinyConfig
    from detoxlens.reporting.config import ReportConfig
    from detoxlens.rl.config import PpoConfig
    from detoxlens.scorers.config import ToxicityConfig
    from detoxlens.sft.config import SftConfig
    from detoxlens.sweep.config import SweepConfig

    return {
        "data": DataConfig,
        "splits": SplitsConfig,
        "lora": LoraConfig,
        "sft": SftConfig,
        "ppo": PpoConfig,
        "reward_model": RewardModelConfig,
        "tiny": TinyConfig,
        "generation": GenerationConfig,
        "toxicity": ToxicityConfig,
        "attribution": AttributionConfig,
        "report": ReportConfig,
        "sweep": SweepConfig,
    }


def check_params(params: Params) -> None:
    """Validates every section, alone and under each declared model's and variant's overrides, before any work is done.

    Raises:
        UserError: the first mistake found.
    """
    _ = params.run  # its lists against one another
    for name, cls in section_classes().items():
        params.section(name, cls)
        for model in params.raw["models"]:
            for variant in params.raw["variants"]:
                params.section(name, cls, model=model, variant=variant)


def run_stage(
    root: Path,
    params_path: Path,
    name: str,
    *,
    model: str | None = None,
    variant: str | None = None,
    track: bool = True,
) -> None:
    """Runs the stage `name` of the pipeline in `root`.

    Args:
        root: repository root.
        params_path: params.yaml.
        name: one of `STAGES`.
        model: key of `models`, for the stages that take one.
        variant: key of `variants`, for the stages that take one.
        track: record the execution in MLflow, and after `report` write one comparable run per (model, variant).
    """
    params = _checked_params(params_path, model, variant)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if name != "rl":
            raise UserError(
                f"{name} runs in one process; what can be launched as several is `detoxlens rl`, and "
                "`detoxlens attribute --share auto`."
            )
        track = track and os.environ.get("RANK", "0") == "0"
    if not track:
        _run(root, params, name, model, variant)
        return

    from detoxlens.tracking import resolve_store, track_stage

    store = resolve_store(root, os.environ)
    filed_under = variant or ("it" if name == "base" else None)
    with track_stage(
        store,
        stage=name,
        model=model,
        variant=variant,
        key=comparable_key(root, params, model, filed_under) if model and filed_under else None,
        params=stage_params(params, name, model, variant),
    ) as stage_run:
        _run(root, params, name, model, variant)
        if name in TRAINING:
            stage_run.log_history(read_history(_trained(Layout(root), name, model, variant)))
    if name == "report":
        publish_runs(root, params, store)


def run_share(root: Path, params_path: Path, name: str, *, model: str, variant: str, share: Share) -> None:
    """Runs one share of a stage's work. MLflow hears of the run that puts the shares together, not of the shares.

    Args:
        root: repository root.
        params_path: params.yaml.
        name: a stage whose `run` takes a share.
        model: key of `models`.
        variant: key of `variants`.
        share: which of how many.
    """
    stage = importlib.import_module(f"detoxlens.stages.{name}")
    stage.run(root, _checked_params(params_path, model, variant), model=model, variant=variant, share=share)


def stage_params(params: Params, name: str, model: str | None, variant: str | None) -> dict[str, Any]:
    """The sections that the stage reads, the overrides of its model and variant applied."""
    classes = section_classes()
    return {
        section: params.section(section, classes[section], model=model, variant=variant).model_dump(mode="json")
        for section in SECTIONS_OF[name]
    }


def comparable_key(root: Path, params: Params, model: str, variant: str) -> str:
    """The tag by which the comparable run of (model, variant) is found: its settings and the data it starts from."""
    from detoxlens.tracking import comparable_params, dvc_md5, run_key

    data = params.section("data", section_classes()["data"])
    sources = {"dialoconan": data.dialoconan, "rtp": data.rtp}
    md5s = {name: dvc_md5(root / source) if (root / source).is_file() else source for name, source in sources.items()}
    settings = comparable_params(params, model=model, variant=variant)
    return run_key(model=model, variant=variant, params=settings, input_md5s=md5s)


def publish_runs(root: Path, params: Params, store: Store) -> None:
    """Writes every (model, variant) of the report as one MLflow run to compare; the same content again changes nothing.

    A store that cannot be used costs no result: the report stands, and a warning says how to try again.
    """
    from detoxlens.reporting.style import colours
    from detoxlens.tracking import DatasetInput, comparable_params, read_curves, write_comparable_run

    layout, run = Layout(root), params.run
    metrics = read_json(layout.reports / "metrics.json")
    curve_files = layout.reports / "entropy_curves.csv", layout.reports / "training_curves.csv"
    datasets = [
        DatasetInput(name="dialogues", path=layout.dialogues, context="training"),
        DatasetInput(name="prompts", path=layout.prompts, context="evaluation"),
    ]
    try:
        for model in run.models:
            for variant in run.variants:
                write_comparable_run(
                    store,
                    model=model,
                    variant=variant,
                    key=comparable_key(root, params, model, variant),
                    params=comparable_params(params, model=model, variant=variant),
                    metrics=metrics[model][variant],
                    curves=read_curves(*curve_files, model=model, variant=variant),
                    figures=sorted((layout.reports / "figures").glob("*.png")),
                    completions=completions_table(layout, model, variant),
                    adapter=layout.adapter(model, variant),
                    datasets=datasets,
                    color=colours(run.variants)[variant],
                    root=root,
                )
    except UserError as e:
        log.warning("%s (The report is complete; `detoxlens log` writes its runs once the store can be used.)", e)


def completions_table(layout: Layout, model: str, variant: str) -> dict[str, list[str | float | None]]:
    """Columns of the completions table in MLflow: every completion with each scorer's toxicity."""
    completions = read_rows(layout.completions(model, variant), Completion)
    scores = read_rows(layout.scores(model, variant), Score)
    table: dict[str, list[str | float | None]] = {
        "prompt_id": [c.prompt_id for c in completions],
        "filters": [" ".join(c.filters) for c in completions],
        "prompt": [c.prompt for c in completions],
        "completion": [c.completion for c in completions],
    }
    for scorer in dict.fromkeys(s.scorer for s in scores):
        of = {(s.prompt_id, s.sample_index): s.toxicity for s in scores if s.scorer == scorer}
        table[f"toxicity_{scorer}"] = [of.get((c.prompt_id, c.sample_index)) for c in completions]
    return table


def _checked_params(params_path: Path, model: str | None, variant: str | None) -> Params:
    """All of params.yaml, `model` and `variant` known in it, and torch told how many threads it may use."""
    params = load_params(params_path)
    check_params(params)
    os.environ.setdefault("OMP_NUM_THREADS", str(params.run.num_threads))  # read when torch loads
    if model is not None:
        params.model(model)
    if variant is not None:
        params.variant(variant)
    return params


def _run(root: Path, params: Params, name: str, model: str | None, variant: str | None) -> None:
    stage = importlib.import_module(f"detoxlens.stages.{name}")
    arguments = {key: value for key, value in (("model", model), ("variant", variant)) if value is not None}
    stage.run(root, params, **arguments)


def _trained(layout: Layout, name: str, model: str | None, variant: str | None) -> Path:
    """The folder that holds the training stage's history."""
    return layout.reward_model if name == "reward_model" else layout.adapter(model, variant or "it")
