"""Checkpoints of transformers' Trainer that a kill may have cut short, in a folder that may have been moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

LAST_WRITTEN = "trainer_state.json"
BEST = "best_model_checkpoint"


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest `checkpoint-<step>` that was written to its end; what is newer and torn is deleted.

    The trainer writes weights, optimizer and generators into the final folder and its own state last. Its state names
    the best checkpoint by an absolute path, which is put right where the folder was moved or copied.
    """
    found = sorted(folder.glob("checkpoint-*"), key=_step)
    while found:
        newest = found.pop()
        try:
            state = json.loads((newest / LAST_WRITTEN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(newest)
            continue
        if state.get(BEST) is not None and Path(state[BEST]).parent != folder:
            partial = newest / f".{LAST_WRITTEN}.partial"
            state[BEST] = str(folder / Path(state[BEST]).name)
            partial.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            partial.replace(newest / LAST_WRITTEN)
        return newest
    return None


def keep_newest(folder: Path, *, step: int, best_step: int | None = None) -> None:
    """Deletes the checkpoints before `step` except the best one: by number, for dates go back when a clock is set."""
    for checkpoint in folder.glob("checkpoint-*"):
        if _step(checkpoint) < step and _step(checkpoint) != best_step:
            shutil.rmtree(checkpoint)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
