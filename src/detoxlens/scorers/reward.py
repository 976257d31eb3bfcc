"""The classifier that training learns from: it rewards, makes pairs, chooses answers, and never grades."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.common.scoring import Scorer
from detoxlens.common.text import as_read, is_blank
from detoxlens.models.classifier import TextClassifier
from detoxlens.params.reward_model import RewardModelConfig

Toxicity = Callable[[list[str]], list[float | None]]
"""P(toxic) in 0..1 of each text, in order; None for one without any text."""


def reward_classifier(root: Path, ref: ModelRef, config: RewardModelConfig, device: str) -> TextClassifier:
    """The classifier that `models/reward` refers to; its toxic label is read from its own config."""
    local = root / ref.base
    return TextClassifier.load(
        str(local) if local.is_dir() else ref.base,
        revision=None if local.is_dir() else ref.revision,
        label=config.label,
        activation=config.activation,
        device=device,
        trust_remote_code=config.trust_remote_code,
    )


def toxicity_by(classifier: TextClassifier, *, normalize: bool) -> Toxicity:
    """The classifier's verdicts on texts as the grader reads them (`toxicity.normalize`)."""

    def toxicity(texts: list[str]) -> list[float | None]:
        filled = [as_read(text) if normalize else text for text in texts if not is_blank(text)]
        found = iter(classifier.prob(filled) if filled else [])
        return [None if is_blank(text) else next(found) for text in texts]

    return toxicity


def check_independent(classifier: TextClassifier, scorer: Scorer) -> None:
    """Raises UserError if the reward classifier and the grader are the same weights: training would grade itself."""
    if classifier.version == scorer.version:
        raise UserError(
            f"reward_model and toxicity.headline={scorer.name!r} have the same weights ({scorer.version}): what is "
            f"trained would be graded by what it was trained with. Choose another toxicity.headline or "
            "reward_model.source."
        )
