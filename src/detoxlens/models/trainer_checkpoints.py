"""Checkpoints of transformers' Trainer that a kill may have cut short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

LAST_WRITTEN = "trainer_state.json"


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest `checkpoint-<step>` that was written to its end; what is newer and torn is deleted.

    The trainer writes weights, optimizer and generators into the final folder and its own state last.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    while found:
        newest = found.pop()
        try:
            json.loads((newest / LAST_WRITTEN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(newest)
        else:
            return newest
    return None
