"""Checkpoints by time beside those by steps: a kill costs at most about a minute, however long a step takes.

What is saved, and so what comes out, does not depend on when it is saved.
"""

from __future__ import annotations

import time

SAVE_SECONDS = 60.0
"""A checkpoint is due so long after the last."""


class SaveTimer:
    """Says when a checkpoint is due, by a clock that nobody can set.

    timer = SaveTimer()
    for step in range(num_steps):
        ...
        if (step + 1) % every == 0 or timer.is_due():
            save()
            timer.restart()
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """To be called after each checkpoint."""
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= SAVE_SECONDS
