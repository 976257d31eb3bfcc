"""The report's curve tables as metrics along steps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric along steps.

    Curve(name="entropy/own/prompt_entropy_bits", points=((1, 2.31), (2, 2.18)))   # step = generated token, from 1
    """

    name: str
    points: tuple[tuple[int, float], ...]
    """(step, value)"""


def read_curves(tables: Sequence[Path], *, model: str, variant: str) -> list[Curve]:
    """The curves of one (model, variant): attribution over generated tokens, then training over steps.

    Names: `entropy/<text>/<measure>` for all completions of its own (`own`) or of another variant, read by this one;
    `entropy/<text>/<group>/<measure>` for a group of them (`entropy/own/toxic/prompt_entropy_bits`), both with `user/`
    in the middle for the user's text alone. Training curves keep the report's names. Only means are metrics; the
    intervals are in the table and the figure.

    Args:
        tables: entropy_curves.csv and training_curves.csv.
        model: model key.
        variant: variant key.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for path in tables:
        for row in _rows(path):
            if (row["model"], row["variant"]) == (model, variant):
                name = row["metric"] if "metric" in row else _entropy_name(row)
                points.setdefault(name, []).append((int(row["step"]), float(row.get("mean") or row["value"])))
    return [Curve(name=name, points=tuple(curve)) for name, curve in points.items()]


def _entropy_name(row: dict[str, str]) -> str:
    group = "" if row["group"] == "all" else f"{row['group']}/"
    text = "own" if row["text"] == row["variant"] else row["text"]
    scope = "" if row["scope"] in ("prompt", "any_method") else f"{row['scope']}/"
    return f"entropy/{text}/{scope}{group}{row['measure']}"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
