"""All of params.yaml checked at once: every section, alone and under every model's and variant's overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError
from detoxlens.params.load import Params, load_params
from detoxlens.params.sections import CLASSES
from detoxlens.params.sft import SftConfig
from detoxlens.params.unread import why_unread


def load_checked(path: Path) -> Params:
    """params.yaml, read and checked.

    Raises:
        UserError: the first mistake found.
    """
    params = load_params(path)
    check_params(params)
    return params


def check_params(params: Params) -> None:
    """Validates every section, alone and under each declared model's and variant's overrides, before any work is done.

    Raises:
        UserError: the first mistake found.
    """
    if params.shared:
        raise UserError(
            f"{params.path}: {'; '.join(params.shared)}: a YAML anchor makes them one, so that a change of a key in "
            "one (`dvc exp run -S`) changes the other, or is lost. Write the second out in full; `detoxlens preset` "
            "and `detoxlens repro --models ...` do so for the whole file."
        )
    _ = params.run  # its lists against one another
    for name, cls in CLASSES.items():
        params.section(name, cls)
        for model in params.raw["models"]:
            for variant in params.raw["variants"]:
                params.section(name, cls, model=model, variant=variant)
    for variant in params.raw["variants"]:
        _check_overrides_count(params, variant)
        _check_data_is_one(params, variant)


def _check_data_is_one(params: Params, variant: str) -> None:
    """Raises UserError if a model changes what the variant is fine-tuned on: DVC has one stage for all models."""
    data = params.data_of(variant)
    if data is None:
        return
    for model in params.raw["models"]:
        if (own := params.section("sft", SftConfig, model=model, variant=variant).data) != data:
            raise UserError(
                f"{params.path}: models.{model}.overrides.sft.data={own!r} changes what {variant} is fine-tuned on "
                f"({data!r}). Set it in sft.data or variants.{variant}.overrides.sft.data, for all models."
            )


def _check_overrides_count(params: Params, variant: str) -> None:
    """Raises UserError if an override of the variant has no effect on its algorithm."""
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
