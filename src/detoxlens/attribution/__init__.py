"""Attribution of generated tokens to the prompt: `from detoxlens.attribution import attribute, METHODS`.

Importing this package loads neither torch nor Inseq; `attribute` and its result are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detoxlens.attribution.api import attribute
    from detoxlens.attribution.result import SequenceAttribution

METHODS: dict[str, str] = {
    "input_x_gradient": "gradient",
    "saliency": "gradient",
    "integrated_gradients": "gradient",
    "occlusion": "occlusion",
    "value_zeroing": "inseq",
    "attention": "inseq",
}
"""Method -> backend: `gradient` (one forward, many backward passes) and `occlusion` (a forward per token) are ours,
`inseq` calls Inseq's implementation."""

__all__ = ["METHODS", "SequenceAttribution", "attribute"]


def __getattr__(name: str):
    if name == "attribute":
        from detoxlens.attribution.api import attribute as found
    elif name == "SequenceAttribution":
        from detoxlens.attribution.result import SequenceAttribution as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
