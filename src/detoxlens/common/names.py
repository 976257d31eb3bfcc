"""Names of variants for readers: the model as released is "base"; `it`, the paper's IT, in files, keys and params."""

from __future__ import annotations

BASE = "it"
"""Key of the model as released: what every other variant is compared with."""


def shown_name(variant: str) -> str:
    """`base` for the key `it`, any other key as it is."""
    return "base" if variant == BASE else variant


def mention(variant: str) -> str:
    """The name within a sentence: base, or `ft` as code."""
    return "base" if variant == BASE else f"`{variant}`"
