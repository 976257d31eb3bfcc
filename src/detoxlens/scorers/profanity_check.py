"""`profanity_check`: a linear model over word counts, learnt from 200,000 real comments, its weights in the package.

alt-profanity-check (MIT): tf-idf of words, linear support vector machine, Platt-scaled probability. Works offline.
Its two weight files are pickles, which run code when loaded: both are compared with known hashes before the import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Keys, ScoredText, Source
from detoxlens.evaluation.fluency import content_words
from detoxlens.evaluation.toxicity import TOXIC
from detoxlens.scorers.base import score_each

PACKAGE = "profanity_check"
WEIGHTS_SHA256: Mapping[str, str] = MappingProxyType(
    {
        "model.joblib": "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
        "vectorizer.joblib": "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
    }
)
"""Of alt-profanity-check 1.9.1."""


class ProfanityCheck:
    """P(offensive) of English text. Casing and punctuation do not matter; unknown words say nothing."""

    name = "profanity_check"
    label = "offensive"
    activation = "sigmoid"
    source: Source = "package"

    def __init__(self, *, normalize: bool = True) -> None:
        """Checks the weights, then imports the package; `normalize`: see `score_each`.

        Raises:
            UserError: the package is missing, or its weights are not the known ones.
        """
        self.version = check_weights(package_folder() / "data")
        from profanity_check import predict_prob

        self._predict_prob, self.normalize = predict_prob, normalize

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order; texts of any length are read whole."""
        return score_each(texts, prob=self._prob, truncates=lambda text: False, normalize=self.normalize)

    def _prob(self, texts: Sequence[str]) -> list[float]:
        return self._predict_prob(list(texts)).tolist()


def toxic_content_words(texts: Iterable[str]) -> frozenset[str]:
    """The content words of `texts` that are offensive by themselves: P > .5; `{"idiot"}` of "Zorgons are idiots"."""
    words = set().union(*map(content_words, texts))
    if new := sorted(words - _is_toxic.keys()):
        for word, verdict in zip(new, _scorer().score(new), strict=True):
            _is_toxic[word] = verdict.toxicity is not None and verdict.toxicity > TOXIC
    return frozenset(word for word in words if _is_toxic[word])


_is_toxic: dict[str, bool] = {}
"""Each word is asked about once: prompts share most of theirs."""


@cache
def _scorer() -> ProfanityCheck:
    return ProfanityCheck()


def package_folder() -> Path:
    """Where the package is installed, found without importing it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("toxicity.scorers: profanity_check needs `pip install alt-profanity-check==1.9.1`.")
    return Path(spec.origin).parent


def check_weights(folder: Path) -> str:
    """First 16 hex digits of the sha256 of both files' hashes; reads the files, loads nothing.

    Raises:
        UserError: a file is missing or is not the known one.
    """
    for name, expected in WEIGHTS_SHA256.items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
        if found != expected:
            raise UserError(
                f"{path} is not the file that alt-profanity-check 1.9.1 ships (sha256 {found}, expected {expected}). "
                "It is a pickle and could run any code, so it is not loaded. Install the package anew: "
                "`pip install --force-reinstall --no-deps alt-profanity-check==1.9.1`."
            )
    return hashlib.sha256("".join(WEIGHTS_SHA256.values()).encode()).hexdigest()[:16]
