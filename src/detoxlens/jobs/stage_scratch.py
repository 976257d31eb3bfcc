"""The frame of a long stage: seeds and threads fixed, then the folder of its unfinished work, found by its key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import Layout
from detoxlens.common.seeding import fix_global_state
from detoxlens.jobs.scratch import Scratch, open_scratch, scratch_key


@contextlib.contextmanager
def stage_scratch(
    root: Path,
    stage: str,
    *,
    module: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    seed: int,
    num_threads: int,
    part: str | None = None,
) -> Iterator[Scratch]:
    """Opens the folder in which a stage resumes.

    Args:
        root: repository root.
        stage: the stage with its model and variant, e.g. `generate@tiny-neox-it`.
        module: the stage's own, `__name__`; its code and all that it imports decide the key.
        settings: all that decides the result besides code, inputs, threads and versions; seeds included where they do.
        inputs: files and folders that are read.
        seed: of the global generators.
        num_threads: torch threads.
        part: the share of the work that this process does beside others; None is the whole.

    Raises:
        UserError: an input does not exist, another process holds the folder or the part, or the disk is full.
    """
    fix_global_state(seed, num_threads)
    key = scratch_key(modules=[module], params=settings, inputs=inputs, num_threads=num_threads)
    with open_scratch(Layout(root).state, stage, key, part=part, place=root) as scratch:
        yield scratch
