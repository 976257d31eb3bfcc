"""Numbers as they are printed."""

from __future__ import annotations


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Fixed digits, a real minus sign, and no negative zero."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")
