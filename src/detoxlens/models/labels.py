"""The toxic output of a text classifier, and whether its outputs exclude one another: read from its config.

What the config leaves open is asked for, never guessed: softmax over labels that do not exclude one another gives .38
for .95.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from detoxlens.common.errors import UserError, did_you_mean

Activation = Literal["softmax", "sigmoid"]
TOXIC_LABELS = frozenset({"toxic", "toxicity", "hate", "hateful", "hatespeech", "offensive", "abusive"})
"""Labels that mean toxic, in lower case without spaces, `-` and `_`."""
HARMLESS_LABELS = frozenset(
    {"neutral", "normal", "none", "neither", "clean", "safe", "ok", "harmless", "benign", "civil"}
)
"""Labels that mean: not toxic."""


def toxic_label_index(id2label: Mapping[int, str], label: str | None = None, *, source: str = "the classifier") -> int:
    """Index of `label`, or of the only label that means toxic: {0: "nothate", 1: "hate"} -> 1.

    Raises:
        UserError: no label, or several, mean toxic; or `label` is none of them.
    """
    names = ", ".join(repr(name) for name in id2label.values())
    if label is not None:
        if label not in id2label.values():
            raise UserError(
                f"{source} has no label {label!r}.{did_you_mean(label, id2label.values())} Its labels: {names}."
            )
        return next(i for i, name in id2label.items() if name == label)
    toxic = [i for i, name in id2label.items() if _plain(name) in TOXIC_LABELS]
    if len(toxic) != 1:
        found = "none of which is" if not toxic else "more than one of which is"
        raise UserError(
            f"{source} has the labels {names}, {found} known to mean toxic. Name the toxic one: for the "
            f"reward as reward_model.label, for a scorer as `hf:{source}#<label>`."
        )
    return toxic[0]


def activation_of(
    problem_type: str | None, id2label: Mapping[int, str], index: int, *, source: str = "the classifier"
) -> Activation:
    """sigmoid for labels of which a text can have several, softmax for labels that exclude one another.

    Without a `problem_type`, only a label beside its own negation ("hate", "nothate") tells: these exclude each other.

    Args:
        problem_type: of the model's config.
        id2label: its labels.
        index: of the toxic one.
        source: how messages call the model.

    Raises:
        UserError: a regression model, whose output is no probability, or labels that leave it open.
    """
    if problem_type == "regression":
        raise UserError(f"{source} is a regression model (problem_type in its config); its output is no probability.")
    if problem_type is not None:
        return "sigmoid" if problem_type == "multi_label_classification" else "softmax"
    others = [_plain(name) for i, name in id2label.items() if i != index]
    if len(others) == 1 and _plain(id2label[index]) in TOXIC_LABELS and _is_harmless(others[0]):
        return "softmax"
    names = ", ".join(repr(name) for name in id2label.values())
    raise UserError(
        f"{source} has the labels {names}, and its config.json does not say how they go together (problem_type). "
        "Choose softmax if they exclude one another, sigmoid if a text can have several or there is but one: for the "
        f"reward as reward_model.activation, for a scorer as `hf:{source}#{id2label[index]}=sigmoid`. Its model card "
        "tells; the output of a regression is no probability, and neither is right for it."
    )


def _is_harmless(label: str) -> bool:
    """Of a label as `_plain` gives it: "nothate", "nontoxic", "neutral"."""
    return label in HARMLESS_LABELS or any(
        label.startswith(no) and label.removeprefix(no) in TOXIC_LABELS for no in ("non", "not", "no", "un", "in")
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " -_")
