"""One line of the doctor's answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at, how it is, and the remedy.

    Check(name="cache", status="broken", detail="2 of 31 outputs are not in DVC's cache", remedy="dvc repro")
    """

    name: str
    status: Status
    """ok; warning: works, but look at it; broken: a command will fail or a result cannot be traced."""
    detail: str
    remedy: str = ""
    """A command to type, or empty."""


def some(names: list[str], *, most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
