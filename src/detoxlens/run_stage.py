"""What surrounds a stage: all of params.yaml is checked first, then the stage runs inside its MLflow run."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from detoxlens.config import Params, load_params

STAGES = ("prepare", "reward_model", "base", "finetune", "rl", "generate", "score", "attribute", "report")


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
    }


def check_params(params: Params) -> None:
    """Validates every section, alone and under each running model's and variant's overrides, before any work is done.

    Raises:
        UserError: the first mistake found.
    """
    run = params.run
    for name, cls in section_classes().items():
        params.section(name, cls)
        for model in run.models:
            for variant in run.variants:
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
        track: log a run to MLflow.
    """
    params = load_params(params_path)
    check_params(params)
    os.environ.setdefault("OMP_NUM_THREADS", str(params.run.num_threads))  # read when torch loads
    if model is not None:
        params.model(model)
    if variant is not None:
        params.variant(variant)
    stage = importlib.import_module(f"detoxlens.stages.{name}")
    arguments = {key: value for key, value in (("model", model), ("variant", variant)) if value is not None}
    stage.run(root, params, **arguments)
