"""Where the values of a param or an objective lie on an axis; for figures on paper and on screen alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.params.sweep import as_stored

MAGNITUDES = 8.0
"""Values that differ by more than this factor are shown by their logarithm."""
FEW = 6
"""So many different numbers are named one by one."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis: `Scale(kinds=(), log=True, numbers=(4, 8, 16, 32))`, or the kinds of a choice from first to last."""

    kinds: tuple[str, ...]
    """What a choice can be, as text; empty for numbers."""
    log: bool
    numbers: tuple[float, ...]
    """Without repetition, rising."""

    def at(self, value: Any) -> float:
        """The place of a value, in the axis' own unit: a number, its logarithm to 10, or a kind's index."""
        if self.kinds:
            return float(self.kinds.index(text_of(value)))
        return math.log10(value) if self.log else float(value)

    @property
    def ends(self) -> tuple[float, float]:
        """Places of the lowest and the highest value, never the same."""
        low, high = (
            (0.0, len(self.kinds) - 1.0) if self.kinds else (self.at(self.numbers[0]), self.at(self.numbers[-1]))
        )
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    @property
    def few(self) -> bool:
        """Can every value be named?"""
        return bool(self.kinds) or len(self.numbers) <= FEW

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and text of every value if they are few, else of both ends and the middle."""
        if self.kinds:
            return [(float(i), kind) for i, kind in enumerate(self.kinds)]
        if self.few:
            return [(self.at(v), f"{v:.3g}") for v in self.numbers]
        low, high = self.ends
        places = [low, (low + high) / 2, high]
        return [(place, f"{10**place if self.log else place:.3g}") for place in places]


def scale_of(values: Sequence[Any]) -> Scale:
    """The axis on which all of `values`, at least one, have a place."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return Scale(tuple(sorted({text_of(v) for v in values})), False, ())
    numbers = tuple(sorted(set(values)))
    return Scale((), numbers[0] > 0 and numbers[-1] / numbers[0] >= MAGNITUDES, numbers)


def text_of(value: Any) -> str:
    """A choice in words; of a list, its members."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(as_stored(value))


def short(text: str, width: int) -> str:
    """At most `width` characters, a longer text cut in its middle."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"
