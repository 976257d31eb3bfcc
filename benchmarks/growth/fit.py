"""The exponent of a power law from measured costs: cost = a * size ^ exponent. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping


def exponent(cost: Mapping[float, float]) -> float:
    """Slope of log cost on log size by least squares: of {1: 3, 10: 30, 100: 300} it is 1.

    Args:
        cost: size -> cost, both > 0, of two sizes or more.
    """
    points = [(math.log(size), math.log(value)) for size, value in cost.items()]
    x_mean, y_mean = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)


def last_exponent(cost: Mapping[float, float]) -> float:
    """The same between the two largest sizes, where what a process costs at its start weighs least."""
    return exponent(dict(sorted(cost.items())[-2:]))
