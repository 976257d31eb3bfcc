"""Scorers grade texts from 0 (harmless) to 1 (toxic). A new one: a file here, and a line in `SCORERS`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from detoxlens.common.artifacts import Layout, write_text
from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.scoring import Scorer
from detoxlens.recorded.scores import Recorded
from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.hf import HfClassifier, Loaded
from detoxlens.scorers.onnx import OnnxClassifier
from detoxlens.scorers.openai_moderation import KEY_VARIABLE as OPENAI_KEY
from detoxlens.scorers.openai_moderation import openai_moderation
from detoxlens.scorers.perspective import KEY_VARIABLE as PERSPECTIVE_KEY
from detoxlens.scorers.perspective import perspective
from detoxlens.scorers.profanity_check import ProfanityCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a scorer is made with, beside its address."""

    root: Path
    """Folders and files are relative to it."""
    device: str = "cpu"
    """Where a model runs, e.g. "cpu" or "cuda:0"."""
    normalize: bool = True
    """Read a text in the letters that it looks like (`common.text.as_read`)."""
    loaded: Loaded | None = None
    """Classifiers that several scorers share; None shares none."""


SCORERS: Mapping[str, Callable[[str, Setting], Scorer]] = MappingProxyType(
    {
        "profanity_check": lambda _, at: ProfanityCheck(normalize=at.normalize),
        "hf": lambda address, at: HfClassifier(
            address, root=at.root, device=at.device, normalize=at.normalize, loaded=at.loaded
        ),
        "perspective": lambda address, at: perspective(address, cache=score_cache(at.root), normalize=at.normalize),
        "openai_moderation": lambda model, at: openai_moderation(
            model, cache=score_cache(at.root), normalize=at.normalize
        ),
        "onnx": lambda address, at: OnnxClassifier(address, root=at.root, normalize=at.normalize),
        "recorded": lambda file, at: Recorded(file, root=at.root),
    }
)
"""What stands before a name's first colon -> (what stands after it, the setting) -> scorer."""

KEY_VARIABLES = (PERSPECTIVE_KEY, OPENAI_KEY)
"""Environment variables that hold the services' keys."""


def score_cache(root: Path) -> ScoreCache:
    """The project's cache of what remote services have said."""
    return ScoreCache(Layout(root).score_cache)


def export_scores(root: Path, file: Path, scorer: str) -> int:
    """Writes one scorer's cached verdicts as JSON lines that `recorded:FILE` reads; the number of them.

    Raises:
        UserError: the cache has none.
    """
    cache = score_cache(root)
    known = cache.rows()
    rows = [row for row in known if row["scorer"] == scorer]
    if not rows:
        others = ", ".join(sorted({row["scorer"] for row in known})) or "none"
        raise UserError(f"{cache.path} has no scores by {scorer!r}; it has scores by: {others}.")
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def make_scorer(
    name: str, *, root: Path, device: str = "cpu", normalize: bool = True, loaded: Loaded | None = None
) -> Scorer:
    """The scorer that params call `name`, loaded.

    Args:
        name: e.g. `profanity_check` or `hf:owner/name@revision`.
        root: folders in `name` are relative to it.
        device: where a model runs, e.g. "cpu" or "cuda:0".
        normalize: read a text in the letters that it looks like; recorded scores are found by the text as it is.
        loaded: given to several scorers, labels of one classifier, it has each text read once for all of them.

    Raises:
        UserError: no such scorer, or it cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    if kind not in SCORERS:
        raise UserError(
            f"toxicity.scorers: unknown scorer {name!r}.{did_you_mean(kind, SCORERS)} Allowed: profanity_check, "
            "hf:<hub id or folder>[@<revision>][#<label>[=<activation>]], perspective[:<language>][@<endpoint>], "
            "openai_moderation[:<model>], onnx:<file>#<class>[+<class>...], recorded:<file>."
        )
    return SCORERS[kind](rest, Setting(root=root, device=device, normalize=normalize, loaded=loaded))


def make_scorers(names: Sequence[str], *, root: Path, device: str = "cpu", normalize: bool = True) -> list[Scorer]:
    """One scorer per name; several labels of one classifier (`hf:<model>#<label>`) are read in one pass.

    Raises:
        UserError: as `make_scorer`.
    """
    times = Counter(name.partition("#")[0] for name in names)
    loaded: Loaded = {}
    return [
        make_scorer(
            name,
            root=root,
            device=device,
            normalize=normalize,
            loaded=loaded if times[name.partition("#")[0]] > 1 else None,
        )
        for name in names
    ]
