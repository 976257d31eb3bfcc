"""`hf:<hub id or folder>[@<revision>][#<label>[=<activation>]]`: any text-classification model, e.g.
`hf:facebook/roberta-hate-speech-dynabench-r4-target@<commit>` or `hf:unitary/toxic-bert@<commit>#toxic=sigmoid`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Keys, ScoredText, Source
from detoxlens.scorers.base import score_each

_ADDRESS = re.compile(
    r"(?P<source>[^@#]+)(@(?P<revision>[^@#]+))?(#(?P<label>.*?)(=(?P<activation>softmax|sigmoid))?)?"
)


class HfClassifier:
    """A `TextClassifier` as a scorer."""

    source: Source = "classifier"

    def __init__(self, address: str, *, root: Path, device: str, normalize: bool = True) -> None:
        """Loads `<hub id or folder>[@<revision>][#<label>[=<activation>]]`.

        Args:
            address: what follows `hf:`.
            root: folders in `address` are relative to it.
            device: e.g. "cpu" or "cuda:0".
            normalize: see `score_each`.

        Raises:
            UserError: the address is not of that form, or `TextClassifier.load` refuses.
        """
        from detoxlens.models.classifier import TextClassifier

        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise UserError(
                f"toxicity.scorers: 'hf:{address}' is not of the form hf:<id or folder>[@<revision>][#<label>"
                "[=softmax|sigmoid]]."
            )
        source = match["source"]
        self.classifier = TextClassifier.load(
            str(root / source) if (root / source).is_dir() else source,
            revision=match["revision"],
            label=match["label"] or None,
            activation=match["activation"],
            device=device,
        )
        self.name, self.normalize = f"hf:{address}", normalize
        self.version = self.classifier.version
        self.label = self.classifier.label
        self.activation = self.classifier.activation

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order; `truncated` where a text exceeds the classifier's own context."""
        judge = self.classifier
        return score_each(texts, prob=judge.prob, truncates=judge.truncates, normalize=self.normalize)
