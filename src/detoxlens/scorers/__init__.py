"""Scorers grade texts from 0 (harmless) to 1 (toxic). A new one: a file here, and a line in `SCORERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from detoxlens.errors import UserError, did_you_mean
from detoxlens.scorers.base import Scorer
from detoxlens.scorers.hf import HfClassifier
from detoxlens.scorers.profanity_check import ProfanityCheck

SCORERS: Mapping[str, Callable[[str, Path, str], Scorer]] = MappingProxyType(
    {
        "profanity_check": lambda _, root, device: ProfanityCheck(),
        "hf": lambda address, root, device: HfClassifier(address, root=root, device=device),
    }
)
"""What stands before a name's first colon -> (what stands after it, repository root, device) -> scorer."""


def make_scorer(name: str, *, root: Path, device: str = "cpu") -> Scorer:
    """The scorer that params call `name`, loaded.

    Args:
        name: e.g. `profanity_check` or `hf:owner/name@revision`.
        root: folders in `name` are relative to it.
        device: where a model runs, e.g. "cpu" or "cuda:0".

    Raises:
        UserError: no such scorer, or it cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    if kind not in SCORERS:
        raise UserError(
            f"toxicity.scorers: unknown scorer {name!r}.{did_you_mean(kind, SCORERS)} Allowed: profanity_check, "
            "hf:<hub id or folder>[@<revision>][#<label>]."
        )
    return SCORERS[kind](rest, root, device)
