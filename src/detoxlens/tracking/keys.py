"""Keys of comparable runs, and the flat names of params and metrics. No MLflow here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from detoxlens.common.errors import UserError
from detoxlens.params.load import Params
from detoxlens.params.reads import MEASURE, READS, made_by
from detoxlens.params.section import Section

MAX_PARAM_CHARS = 6000
"""MLflow's limit for the value of a param."""


class _AnySection(Section):
    model_config = ConfigDict(extra="allow")


def run_key(*, model: str, variant: str, params: Mapping[str, Any], input_md5s: Mapping[str, str]) -> str:
    """64 hex digits that identify the comparable run of (model, variant): the tag `detoxlens.key`.

    Args:
        model: key of params `models`.
        variant: key of params `variants`.
        params: every setting of this model and variant, from `comparable_params`.
        input_md5s: `dvc_md5` of the raw inputs by their name in params.
    """
    identity = {"model": model, "variant": variant, "params": params, "inputs": input_md5s}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def comparable_params(params: Params, *, model: str, variant: str) -> dict[str, Any]:
    """The settings that decide the results of one model and variant, its overrides applied; nested mappings.

    Left out is what has no part in them: which other models and variants are run beside it, how those are trained, how
    the report shows it all. The variants that training starts from are kept, under `init_from`.
    """
    resolved = {
        name: params.section(name, _AnySection, model=model, variant=variant).model_dump()
        for name in _sections(params, [variant, *_ancestors(params, variant)])
    }
    run = params.section("run", _AnySection).model_dump()
    resolved["run"] = {key: value for key, value in run.items() if not isinstance(value, list)}
    resolved["model"] = params.model(model).model_dump(exclude={"overrides"})
    resolved["variant"] = params.variant(variant).model_dump(exclude={"overrides"})
    resolved["init_from"] = {v: params.variant(v).model_dump() for v in _ancestors(params, variant)}
    return resolved


def _sections(params: Params, variants: list[str]) -> list[str]:
    """The sections that `variants` are made and measured by; how others are trained and results shown has no part."""
    kinds = {params.stage_of(variant): params.variant(variant).kind for variant in variants}
    judged = any("reward_model" in READS[stage] for stage in kinds)
    stages = ["prepare", "base", *(["reward_model"] if judged else []), *MEASURE]
    read = {name for stage in stages for name in READS[stage]}
    read |= {name for stage, kind in kinds.items() for name in made_by(kind, stage)}
    return [name for name in params.raw if name in read]


def _ancestors(params: Params, variant: str) -> list[str]:
    """The variants whose adapters `variant` starts from or combines, nearest first."""
    ancestors: list[str] = []
    parents = params.made_of(variant)
    while parents:
        parent, *parents = parents
        if parent not in ancestors:
            ancestors.append(parent)
            parents += params.made_of(parent)
    return ancestors


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """`{"ppo": {"clip": .2, "layers": ["a"]}}` -> `{"ppo.clip": "0.2", "ppo.layers": '["a"]'}`; long values are cut."""
    return {
        name: (value if isinstance(value, str) else json.dumps(value))[:MAX_PARAM_CHARS]
        for name, value in _leaves(params, ".")
    }


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """One (model, variant) of metrics.json under flat names: `toxicity/p50/rate_gt_50`, `toxicity/p50/ci95_lo`.

    A pair `[lo, hi]` becomes two metrics; null, text and NaN are left out.
    """
    flat: dict[str, float] = {}
    for name, value in _leaves(metrics, "/"):
        pair = isinstance(value, list | tuple) and len(value) == 2
        for key, number in {f"{name}_lo": value[0], f"{name}_hi": value[1]}.items() if pair else [(name, value)]:
            if isinstance(number, int | float) and math.isfinite(number):
                flat[key] = float(number)
    return flat


def _leaves(tree: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


def dvc_md5(path: Path) -> str:
    """The md5 that dvc.lock holds for a file or folder (a folder's ends in `.dir`).

    Raises:
        UserError: the path does not exist.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    if not path.is_dir():
        raise UserError(f"{path} does not exist; `dvc pull` or `dvc repro` brings it.")
    files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    listing = json.dumps([{"md5": dvc_md5(p), "relpath": name} for name, p in files])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"
