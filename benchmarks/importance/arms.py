"""The arms of one kind of penalty."""

from __future__ import annotations

from typing import Any

PLAIN, PLACEBO = "plain", "placebo"


def arms_of(kind: str, weight: float, num_examples: int) -> dict[str, dict[str, Any]]:
    """Name of an arm -> its `regularizer`; of the plain one the quantity is measured alone."""
    own = {"kind": kind, "num_examples": num_examples}
    return {
        PLAIN: own | {"weight": 0.0},
        "lower": own | {"weight": weight},
        "raise": own | {"weight": -weight},
        PLACEBO: own | {"weight": weight, "columns": "shuffled"},
    }
