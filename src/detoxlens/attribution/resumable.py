"""Attribution that outlives a kill: batches planned first, each on disk before the next begins, by one process or more.

plan.json                   [[row, row, ...], ...]: decides the last bits of the scores, so it is made once
batches*.jsonl, a line:     {"batch": number in the plan, "results": [fields of SequenceAttribution, ...]}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detoxlens.attribution.api import attribute, plan_batches
from detoxlens.attribution.config import AttributionConfig
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.progress import progress
from detoxlens.records import Completion
from detoxlens.scratch import Scratch
from detoxlens.shares import Share

if TYPE_CHECKING:
    from torch import nn


def attribute_rows(
    scratch: Scratch,
    network: nn.Module,
    rows: Sequence[Completion],
    config: AttributionConfig,
    *,
    title: str,
    share: Share | None = None,
) -> list[SequenceAttribution | None]:
    """An attribution per row, those that an earlier or another process has finished read from `scratch`.

    Args:
        scratch: opened for the whole, or for the part that `share` is.
        network: the model.
        rows: the completions, the same ones in every process.
        config: how.
        title: of the progress bar.
        share: attribute this share's batches only; None attributes all that are left.

    Returns:
        One per row; None where it is another share's and not finished yet. Without a share none is.
    """
    plan = scratch.once("plan", lambda: _plan(network, rows, config))
    found = _finished(scratch, plan)
    mine = [number for number in range(len(plan)) if share is None or share.takes(number)]
    total = sum(len(plan[number]) for number in mine)
    left = [number for number in mine if plan[number][0] not in found]
    num_done = total - sum(len(plan[number]) for number in left)
    log = scratch.log("batches")
    with progress(title, total=total, unit="completions", num_done=num_done) as bar:
        for number in left:
            batch = [rows[i] for i in plan[number]]
            results = attribute(
                network,
                prompt_ids=[row.prompt_ids for row in batch],
                completion_ids=[row.completion_ids for row in batch],
                names=[f"prompt {row.prompt_id}, sample {row.sample_index}" for row in batch],
                method=config.method,
                target=config.target,
                batch_size=len(batch),
                num_path_steps=config.num_path_steps,
            )
            log.append([{"batch": number, "results": [dataclasses.asdict(result) for result in results]}])
            found.update(zip(plan[number], results, strict=True))
            bar.advance(len(batch))
    if share is not None:
        found = _finished(scratch, plan)  # the others went on meanwhile
    return [found.get(i) for i in range(len(rows))]


def _finished(scratch: Scratch, plan: Sequence[Sequence[int]]) -> dict[int, SequenceAttribution]:
    """What is on disk, by row."""
    found: dict[int, SequenceAttribution] = {}
    for line in scratch.read_logs("batches"):
        found.update(zip(plan[line["batch"]], map(_thawed, line["results"]), strict=True))
    return found


def _plan(network: nn.Module, rows: Sequence[Completion], config: AttributionConfig) -> list[list[int]]:
    """Batches of row numbers. No batch mixes splits: a sweep has validation prompts alone and wants the same bits."""
    plan: list[list[int]] = []
    for split in dict.fromkeys(row.split for row in rows):
        members = [i for i, row in enumerate(rows) if row.split == split]
        lengths = [(len(rows[i].prompt_ids), len(rows[i].completion_ids)) for i in members]
        batches = plan_batches(network, lengths, batch_size=config.batch_size, memory_mib=config.memory_mib)
        plan += [[members[k] for k in batch] for batch in batches]
    return plan


def _thawed(fields: dict[str, Any]) -> SequenceAttribution:
    """The result again, from what JSON made of it."""
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    if fields["scores"] is not None:
        tuples["scores"] = tuple(map(tuple, fields["scores"]))
    return SequenceAttribution(**(fields | tuples))
