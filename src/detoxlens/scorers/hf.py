"""`hf:<hub id or folder>[@<revision>][#<label>[=<activation>]]`: any text-classification model, e.g.
`hf:facebook/roberta-hate-speech-dynabench-r4-target@<commit>` or `hf:unitary/toxic-bert@<commit>#toxic=sigmoid`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Keys, ScoredText, Source
from detoxlens.scorers.base import score_each

if TYPE_CHECKING:
    from detoxlens.models.classifier import TextClassifier

Loaded = dict[tuple[str, str | None], "TextClassifier"]
"""(folder or hub id, revision) -> the classifier."""

_ADDRESS = re.compile(
    r"(?P<source>[^@#]+)(@(?P<revision>[^@#]+))?(#(?P<label>.*?)(=(?P<activation>softmax|sigmoid))?)?"
)


class HfClassifier:
    """A `TextClassifier` as a scorer."""

    source: Source = "classifier"

    def __init__(
        self, address: str, *, root: Path, device: str, normalize: bool = True, loaded: Loaded | None = None
    ) -> None:
        """Loads `<hub id or folder>[@<revision>][#<label>[=<activation>]]`.

        Args:
            address: what follows `hf:`.
            root: folders in `address` are relative to it.
            device: e.g. "cpu" or "cuda:0".
            normalize: see `score_each`.
            loaded: classifiers of other scorers; one of the same source is shared, and each text is read once for
                all of its labels.

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
        source, label = match["source"], match["label"] or None
        where = str(root / source) if (root / source).is_dir() else source
        key = where, match["revision"]
        if loaded is not None and key in loaded:
            self.classifier = loaded[key].of_label(label, match["activation"], source=where)
        else:
            self.classifier = TextClassifier.load(
                where, revision=match["revision"], label=label, activation=match["activation"], device=device
            )
            if loaded is not None:
                self.classifier = loaded[key] = dataclasses.replace(self.classifier, known={})
        self.name, self.normalize = f"hf:{address}", normalize
        self.version = self.classifier.version
        self.label = self.classifier.label
        self.activation = self.classifier.activation

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order; `truncated` where a text exceeds the classifier's own context."""
        judge = self.classifier
        return score_each(texts, prob=judge.prob, truncates=judge.truncates, normalize=self.normalize)
