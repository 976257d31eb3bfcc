"""One execution of a stage: all of params.yaml checked first, then the stage inside its MLflow run."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import Layout, read_history
from detoxlens.common.checkout import check_own_code
from detoxlens.common.errors import UserError
from detoxlens.common.names import BASE
from detoxlens.jobs.shares import Share
from detoxlens.params.check import load_checked
from detoxlens.params.load import Params
from detoxlens.params.reads import READS, TRAINING, module_of
from detoxlens.params.sections import CLASSES
from detoxlens.params.tracking import TrackingConfig
from detoxlens.pipeline.code import write_code
from detoxlens.pipeline.publish import comparable_key, publish_runs

if TYPE_CHECKING:
    from detoxlens.pipeline.on_ray import RayShares

log = logging.getLogger(__name__)
WITH_CURVES = ("reward_model", *TRAINING)
"""Stages that leave a history."""


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
        name: one of `params.reads.STAGES`.
        model: key of `models`, for the stages that take one.
        variant: key of `variants`, for the stages that take one.
        track: record the execution in MLflow, and after `report` write one comparable run per (model, variant).
        ray: as shares on a Ray cluster, for the stages whose `run` takes a share; None is this process.
    """
    is_launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if is_launched and name != "rl":
        raise UserError(
            f"{name} runs in one process; what can be launched as several is `detoxlens rl`, and "
            "generate, score and attribute with `--share auto`."
        )
    params = _prepared(root, params_path, name, model, variant)
    track = track and not (is_launched and os.environ.get("RANK", "0") != "0")
    if not track:
        _run(root, params, name, model, variant, ray)
        return

    from detoxlens.tracking import report_history, resolve_store, run_name, track_stage

    store = resolve_store(root, os.environ)
    filed_under = variant or (BASE if name == "base" else None)
    with track_stage(
        store,
        stage=name,
        model=model,
        variant=filed_under,
        key=comparable_key(root, params, model, filed_under) if model and filed_under else None,
        params=stage_params(params, name, model, variant),
    ) as stage_run:
        _run(root, params, name, model, variant, ray)
        if name in WITH_CURVES:
            history = read_history(_trained(Layout(root), name, model, variant))
            stage_run.log_history(history)
            reporters = params.section("tracking", TrackingConfig).report_to
            report_history(reporters, root, run_name(model, variant or BASE) if model else name, history)
    if name == "report":
        try:
            publish_runs(root, params, store, environ=os.environ)
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
    stage = importlib.import_module(module_of(name))
    stage.run(root, _prepared(root, params_path, name, model, variant), model=model, variant=variant, share=share)


def stage_params(params: Params, name: str, model: str | None, variant: str | None) -> dict[str, Any]:
    """The sections that the stage reads, the overrides of its model and variant applied."""
    return {
        section: params.section(section, CLASSES[section], model=model, variant=variant).model_dump(mode="json")
        for section in READS[name]
    }


def _prepared(root: Path, params_path: Path, name: str, model: str | None, variant: str | None) -> Params:
    """All of params.yaml, with `model` and `variant` known in it; run by the code of the checkout itself."""
    check_own_code(root)
    params = load_checked(params_path)
    os.environ.setdefault("OMP_NUM_THREADS", str(params.run.num_threads))  # read when torch loads
    if model is not None:
        params.model(model)
    if variant is not None:
        params.variant(variant)
    if (root / "dvc.yaml").exists():
        write_code(root, [name])
    return params


def _run(root: Path, params: Params, name: str, model: str | None, variant: str | None, ray: RayShares | None) -> None:
    if ray is not None:
        from detoxlens.pipeline.on_ray import run_shares

        run_shares(root, params, name, model=model, variant=variant, shares=ray)
        return
    stage = importlib.import_module(module_of(name))
    arguments = {key: value for key, value in (("model", model), ("variant", variant)) if value is not None}
    stage.run(root, params, **arguments)


def _trained(layout: Layout, name: str, model: str | None, variant: str | None) -> Path:
    """The folder that holds the training stage's history."""
    return layout.reward_model if name == "reward_model" else layout.adapter(model, variant or "it")
