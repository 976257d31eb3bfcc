"""A trial's point into params.yaml, comments kept; `dvc repro` then finds the trial's validation metrics again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.params.edit import change_params, diff_of
from detoxlens.params.load import load_params
from detoxlens.sweep.space import overrides_of
from detoxlens.sweep.storage import default_url, differences, load_study, open_storage
from detoxlens.sweep.study import point_of, setting_of


def apply_trial(root: Path, params_path: Path, *, study: str, number: int, url: str | None) -> tuple[str, list[str]]:
    """Writes trial `number`'s point into params.yaml.

    Returns:
        The unified diff, and what else has changed since the trial, so that its numbers will not come again.

    Raises:
        UserError: there is no such study or complete trial, or the result would not be valid; nothing is changed.
    """
    params = load_params(params_path)
    layout = Layout(root)
    if url is None and not layout.sweeps_database.exists():  # not made by looking
        raise UserError(
            f"No sweep was begun here yet; `detoxlens sweep --study {study}` begins one, --storage names it."
        )
    url = url or default_url(root)
    found, definition = load_study(open_storage(url, layout.state), url, study)
    complete = [t.number for t in found.trials if t.state.name == "COMPLETE"]
    if number not in complete:
        there_are = ", ".join(map(str, complete)) or "none yet"
        raise UserError(
            f"--trial {number}: sweep {study!r} has no complete trial of that number; there are {there_are}."
        )
    point = point_of(definition, found.trials[number])
    then = {key: definition[key] for key in ("settings", "inputs")}
    models, variant = list(definition["settings"]), definition["variant"]
    stale = differences(then, setting_of(root, params, list(definition["space"]), models=models, variant=variant))
    made_before = ["reward_model", *(f"base@{model}" for model in models)]
    stale += [f"`dvc repro` will run {stage} anew" for stage in outdated(root, made_before)]
    before = params_path.read_text(encoding="utf-8")
    change_params(params_path, overrides_of(variant, point))
    return diff_of(params_path, before), stale


def outdated(root: Path, stages: Sequence[str]) -> list[str]:
    """Those of the stages that DVC would run again; none where the folder is no DVC project."""
    command = [sys.executable, "-m", "dvc", "status", "--json", *stages]
    asked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return sorted(json.loads(asked.stdout)) if asked.returncode == 0 else []
