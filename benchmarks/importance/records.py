"""benchmarks/results/importance.json: method -> setting, effects, trainings, hardware. Methods are never mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware import hardware
from benchmarks.importance.effects import effects
from benchmarks.script import RESULTS, write_figures
from detoxlens.common.errors import UserError

NAME = "importance"
Run = dict[str, Any]
"""regularizer, seed, looks, quantity, cpu_seconds, wall_seconds."""
DIGITS = 5


def read_runs(root: Path, method: str, setting: Mapping[str, Any]) -> list[Run]:
    """The trainings of `method` that are done.

    Raises:
        UserError: they were done in another setting, so that they cannot be compared.
    """
    known = _read(root).get(method, {"setting": setting, "runs": []})
    if known["setting"] != setting:
        raise UserError(
            f"{RESULTS / f'{NAME}.json'} holds {len(known['runs'])} trainings of {method} with {known['setting']}; "
            f"asked for is {dict(setting)}. Give the options that they had, or take {method!r} out of the file."
        )
    return known["runs"]


def is_done(runs: Sequence[Run], regularizer: Mapping[str, Any], seed: int) -> bool:
    """Is there such a training? At weight 0 the kind does not matter: it is measured and changes no byte."""
    return any(
        run["seed"] == seed
        and (run["regularizer"] == regularizer or run["regularizer"]["weight"] == regularizer["weight"] == 0)
        for run in runs
    )


def write_runs(root: Path, method: str, setting: Mapping[str, Any], runs: Sequence[Run]) -> Path:
    """Replaces what is known of `method`; the other one stays."""
    mine = {"setting": setting, "effects": effects(runs), "runs": runs, "hardware": hardware()}
    return write_figures(root, NAME, _read(root) | {method: _rounded(mine)})


def _read(root: Path) -> dict[str, Any]:
    file = root / RESULTS / f"{NAME}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, DIGITS) if isinstance(value, float) else value
