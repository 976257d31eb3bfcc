"""`detoxlens repro`, which `mlflow run` calls: params.yaml changed as asked, then `dvc repro`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError
from detoxlens.params.check import load_checked
from detoxlens.params.edit import change_run_section, variant_lists
from detoxlens.params.load import load_params
from detoxlens.params.reads import EVALUATION
from detoxlens.pipeline.publish import comparable_key

UNCHANGED = "unchanged"


def repro(
    root: Path,
    params_path: Path,
    *,
    models: str = UNCHANGED,
    variants: str = UNCHANGED,
    seed: str = UNCHANGED,
    evaluate_only: bool = False,
) -> int:
    """Writes what was asked into params.yaml, runs `dvc repro`, and tells MLflow what the project run led to.

    Args:
        root: repository root.
        params_path: params.yaml; its comments are kept.
        models: comma-separated keys of `models`, or "unchanged".
        variants: comma-separated keys of `variants`, or "unchanged".
        seed: run.seed, or "unchanged".
        evaluate_only: run the evaluation stages alone, on the adapters that are there.

    Returns:
        DVC's exit status.

    Raises:
        UserError: a model or variant is not declared, or the seed is no number.
    """
    from detoxlens.tracking import finish_project_run, resolve_store

    changes: dict[str, Any] = {}
    if models != UNCHANGED:
        changes["models"] = names_of(models)
    if variants != UNCHANGED:
        changes |= variant_lists(load_params(params_path), names_of(variants))
    if seed != UNCHANGED:
        if not seed.isdecimal():
            raise UserError(f"seed={seed!r} must be a whole number of at least 0.")
        changes["seed"] = int(seed)
    if changes:
        change_run_section(params_path, changes)
    params = load_checked(params_path)
    command = [sys.executable, "-m", "dvc", "repro"]
    if evaluate_only:
        command += ["--single-item", "code", *EVALUATION]
    status = subprocess.run(command, cwd=root, env=stage_environment(), check=False).returncode
    run = params.run
    keys = [comparable_key(root, params, model, variant) for model in run.models for variant in run.variants]
    finish_project_run(resolve_store(root, os.environ), keys)
    return status


def stage_environment() -> dict[str, str]:
    """The environment with this interpreter's folder first on the path, so that DVC's stages find `detoxlens`."""
    return os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def names_of(text: str) -> list[str]:
    """The names of a comma-separated list; "unchanged" holds none."""
    return [] if text == UNCHANGED else [name.strip() for name in text.split(",") if name.strip()]
