"""What surrounds a stage: all of params.yaml is checked first, then the stage runs inside its MLflow run."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.artifacts import Layout, read_history
from detoxlens.config import Params, load_params
from detoxlens.errors import UserError
from detoxlens.publish import comparable_key, publish_runs
from detoxlens.shares import Share

if TYPE_CHECKING:
    from detoxlens.on_ray import RayShares

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
    for variant in params.raw["variants"]:
        _check_overrides_count(params, variant)


def _check_overrides_count(params: Params, variant: str) -> None:
    """Raises UserError if an override of the variant has no effect on its algorithm."""
    from detoxlens.rl.unread import why_unread

    chosen = params.variant(variant)
    if chosen.algorithm is None:
        return
    for key in _dotted(chosen.overrides):
        if why := why_unread(chosen.algorithm, key):
            raise UserError(
                f"{params.path}: variants.{variant}.overrides.{key} has no effect on algorithm "
                f"{chosen.algorithm!r}: {why} Remove it."
            )


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`ppo.kl.coef`, ...: the path of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def run_stage(
    root: Path,
    params_path: Path,
    name: str,
    *,
    model: str | None = None,
    variant: str | None = None,
    track: bool = True,
    ray: RayShares | None = None,
) -> None:
    """Runs the stage `name` of the pipeline in `root`.

    Args:
        root: repository root.
        params_path: params.yaml.
        name: one of `STAGES`.
        model: key of `models`, for the stages that take one.
        variant: key of `variants`, for the stages that take one.
        track: record the execution in MLflow, and after `report` write one comparable run per (model, variant).
        ray: as shares on a Ray cluster, for the stages whose `run` takes a share; None is this process.
    """
    params = _checked_params(params_path, model, variant)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if name != "rl":
            raise UserError(
                f"{name} runs in one process; what can be launched as several is `detoxlens rl`, and "
                "generate, score and attribute with `--share auto`."
            )
        track = track and os.environ.get("RANK", "0") == "0"
    if not track:
        _run(root, params, name, model, variant, ray)
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
        _run(root, params, name, model, variant, ray)
        if name in TRAINING:
            stage_run.log_history(read_history(_trained(Layout(root), name, model, variant)))
    if name == "report":
        try:
            publish_runs(root, params, store)
        except UserError as e:
            log.warning("%s (The report is complete; `detoxlens log` writes its runs once the store can be used.)", e)


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


def _run(root: Path, params: Params, name: str, model: str | None, variant: str | None, ray: RayShares | None) -> None:
    if ray is not None:
        from detoxlens.on_ray import run_shares

        run_shares(root, params, name, model=model, variant=variant, shares=ray)
        return
    stage = importlib.import_module(f"detoxlens.stages.{name}")
    arguments = {key: value for key, value in (("model", model), ("variant", variant)) if value is not None}
    stage.run(root, params, **arguments)


def _trained(layout: Layout, name: str, model: str | None, variant: str | None) -> Path:
    """The folder that holds the training stage's history."""
    return layout.reward_model if name == "reward_model" else layout.adapter(model, variant or "it")
