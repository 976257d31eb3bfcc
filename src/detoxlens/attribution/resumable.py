"""Attribution that outlives a kill: batches planned first, each on disk before the next begins, by one process or more.

The plan of batches decides the last bits of the scores, so it is made once and stored: `plan.json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detoxlens.attribution.api import attribute, plan_batches
from detoxlens.attribution.engine import Learnt
from detoxlens.attribution.reliance import prompt_reliance
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.common.records import Completion
from detoxlens.jobs.batches import Batches
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import Scratch
from detoxlens.jobs.shares import Share
from detoxlens.params.attribution import AttributionConfig

if TYPE_CHECKING:
    from torch import nn

FIELDS = tuple(field.name for field in dataclasses.fields(SequenceAttribution))


def attribute_rows(
    scratch: Scratch,
    network: nn.Module,
    rows: Sequence[Completion],
    config: AttributionConfig,
    *,
    name: str,
    title: str,
    reliance: bool = False,
    share: Share | None = None,
) -> list[SequenceAttribution | None]:
    """An attribution per row, those that an earlier or another process has finished read from `scratch`.

    Args:
        scratch: opened for the whole, or for the part that `share` is.
        network: the model.
        rows: the completions, the same ones in every process.
        config: how.
        name: of this work within the stage.
        title: of the progress bar.
        reliance: measure by predictions too how much each token depends on the user's text.
        share: attribute this share's batches only; None attributes all that are left.

    Returns:
        One per row; None where it is another share's and not finished yet. Without a share none is.
    """
    plan = scratch.once(f"plan-{name}", lambda: _plan(network, rows, config))
    batches = Batches(scratch, plan, name=f"batches-{name}", share=share)

    learnt = Learnt()

    def work(numbers: Sequence[int]) -> list[dict[str, Any]]:
        batch = [rows[i] for i in numbers]
        results = attribute(
            network,
            prompt_ids=[row.prompt_ids for row in batch],
            completion_ids=[row.completion_ids for row in batch],
            names=[f"prompt {row.prompt_id}, sample {row.sample_index}" for row in batch],
            method=config.method,
            target=config.target,
            batch_size=len(batch),
            num_path_steps=config.num_path_steps,
            learnt=learnt,
        )
        if reliance:
            results = _with_reliance(network, batch, results)
        return [{name: getattr(result, name) for name in FIELDS} for result in results]

    with progress(title, total=batches.num_rows, unit="completions", num_done=batches.num_done) as bar:
        found = batches.run(work, bar)
    return [_thawed(found[i]) if i in found else None for i in range(len(rows))]


def _with_reliance(
    network: nn.Module, rows: Sequence[Completion], results: Sequence[SequenceAttribution]
) -> list[SequenceAttribution]:
    """The same results, those with scores with the measures that need no attribution."""
    usable = [i for i, result in enumerate(results) if result.scores is not None]
    measured = prompt_reliance(
        network,
        prompt_ids=[rows[i].prompt_ids for i in usable],
        completion_ids=[rows[i].completion_ids for i in usable],
        is_template=[rows[i].prompt_token_is_template for i in usable],
    )
    found = list(results)
    for i, of in zip(usable, measured, strict=True):
        if of is not None:
            found[i] = dataclasses.replace(found[i], prompt_kl_bits=of.kl_bits, prompt_gain_bits=of.gain_bits)
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
    """The result again, from its fields or from what JSON made of them."""
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    if fields["scores"] is not None:
        tuples["scores"] = tuple(map(tuple, fields["scores"]))
    return SequenceAttribution(**(fields | tuples))
