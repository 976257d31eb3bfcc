"""Numbers as they are printed, and as other programs wrote them into files."""

from __future__ import annotations

from typing import Any


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Fixed digits, a real minus sign, and no negative zero."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def whole(value: Any) -> int | None:
    """The whole number that a cell holds, also as pandas writes a column with a gap (`7.0`); None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        return int(value) if not isinstance(value, float) else int(value) if value.is_integer() else None
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(found) if found.is_integer() else None


def identifier(value: Any) -> str:
    """A cell as a name: `7`, `7.0` and `"7.0"` are one, so that a file that went through pandas has the same ids."""
    number = whole(value)
    if number is not None and (isinstance(value, float) or (isinstance(value, str) and value.strip().endswith(".0"))):
        return str(number)
    return "" if value is None or value != value else str(value)
