"""What a method without training may ask for; loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.records import ModelRef

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A prompt with a reply to it: Reply(ids=(12, 7, 30, 9, 41, 3), num_own=2)."""

    ids: tuple[int, ...]
    num_own: int
    """How many ids at the end are the reply's own, >= 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Of one model."""

    base: ModelRef
    """The model as released, without adapter."""
    network: Callable[[], PreTrainedModel]
    """The model as released, loaded."""
    replies: Callable[[int], tuple[Sequence[Reply], Sequence[Reply]]]
    """At most so many civil, and as many hostile, replies to the same prompts."""
    adapter: Callable[[str], Path]
    """Variant -> its folder under adapters/<m>."""
    check_system: Callable[[str], None]
    """Raises UserError if the model's chats take no such system message."""
