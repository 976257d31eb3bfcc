"""Presets: files in presets/ whose keys are written into params.yaml; `without` lists key paths that are taken out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.params.edit import REMOVED, change_params, diff_of
from detoxlens.params.load import load_params, read_yaml
from detoxlens.params.section import NAME

WITHOUT = "without"


def apply_preset(root: Path, params_path: Path, name: str) -> str:
    """Writes presets/<name>.yaml into params.yaml, key by key; what it does not name stays, comments included.

    Its list `without` names what does not stay, e.g. splits.p50.

    Returns:
        The unified diff; empty where nothing was to change.

    Raises:
        UserError: there is no such preset, or the result would not be valid; the file is as it was.
    """
    file = root / "presets" / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or not file.is_file():
        known = sorted(path.stem for path in (root / "presets").glob("*.yaml"))
        raise UserError(
            f"There is no preset {name!r}.{did_you_mean(name, known)} In {root / 'presets'} are: "
            f"{', '.join(known) or 'none'}. A preset is a YAML file there with keys of params.yaml."
        )
    load_params(params_path)
    before = params_path.read_text(encoding="utf-8")
    wanted = read_yaml(file)
    if not isinstance(wanted, Mapping):
        raise UserError(f"{file} holds {type(wanted).__name__}, not sections of params.yaml such as run: and models:.")
    without = wanted.get(WITHOUT) or []
    if not isinstance(without, list) or not all(isinstance(key, str) for key in without):
        raise UserError(f"{file}: {WITHOUT}={without!r} must be a list of key paths such as splits.p50.")
    changes: dict[tuple[str, ...], Any] = dict(_leaves({k: v for k, v in wanted.items() if k != WITHOUT}))
    change_params(params_path, changes | {tuple(key.split(".")): REMOVED for key in without})
    return diff_of(params_path, before)


def _leaves(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Key path and value of everything in a nested mapping that is no mapping itself (or an empty one)."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
