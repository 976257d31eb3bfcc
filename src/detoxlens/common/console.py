"""Messages on standard error: our own, and no warnings that a user can do nothing about."""

from __future__ import annotations

import logging
import warnings

NOISE = ("`is_gradient_checkpointing` is deprecated",)
"""Warnings of one library at another (peft 0.21 at transformers 5.23)."""


def set_up_console() -> None:
    """Lets our messages through from INFO on, others' from WARNING on."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("detoxlens").setLevel(logging.INFO)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
