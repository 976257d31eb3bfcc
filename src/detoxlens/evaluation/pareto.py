"""Which points are not dominated, where less is better in both directions. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Per point: is none of the others at most as large in both and smaller in one?

    on_front([(60, 0), (5, 10), (7, 20)]) == [True, True, False]
    """
    return [not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points) for a in points]
