"""Texts read by one model: attributed by the headline's method, a sample of them by others, and put to the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.attribution.faithfulness import Faithfulness, Subject, check_faithfulness
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.resumable import attribute_rows
from detoxlens.attribution.sampling import draw
from detoxlens.common.records import Completion
from detoxlens.common.seeding import derive_seed
from detoxlens.jobs.scratch import Scratch
from detoxlens.jobs.shares import Share
from detoxlens.params.attribution import AttributionConfig

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One completion read by one model, attributed by one method."""

    reader: str
    source: str
    """The variant whose completion it is."""
    row: Completion
    is_headline: bool
    """By `attribution.method`, not by one that it is compared with."""
    result: SequenceAttribution | None
    """None where it is another share's, not finished yet."""


def read_texts(
    scratch: Scratch,
    network: nn.Module,
    reader: str,
    rows: Sequence[tuple[str, Completion]],
    config: AttributionConfig,
    *,
    seed: int,
    title: str,
    share: Share | None,
) -> Iterator[Read]:
    """All rows by the headline's method, and a sample of the test prompts by each further one."""
    prompts = {row.prompt_id for _, row in rows if row.split == "test"}
    sample = set(draw(prompts, config.agreement.num_sequences, seed=derive_seed(seed, "agreement")))
    sampled = [(source, row) for source, row in rows if row.prompt_id in sample]
    others = [method for method in config.agreement.methods if method != config.method and sampled]
    for method, chosen in ((config.method, rows), *((method, sampled) for method in others)):
        found = attribute_rows(
            scratch,
            network,
            [row for _, row in chosen],
            config.model_copy(update={"method": method}),
            name=f"{reader}-{method}",
            title=f"{title}: {reader} reads, {method}{f' {share}' if share else ''}",
            reliance=method == config.method,
            share=share,
        )
        for (source, row), result in zip(chosen, found, strict=True):
            is_headline = method == config.method
            yield Read(reader=reader, source=source, row=row, is_headline=is_headline, result=result)


def faithfulness_of(network: nn.Module, own: Sequence[Read], config: AttributionConfig, *, seed: int) -> Faithfulness:
    """The deletion and randomisation tests on a random sample."""
    test = config.faithfulness
    usable = [read for read in own if read.result.scores is not None]
    usable.sort(key=lambda read: derive_seed(seed, "faithfulness", read.row.prompt_id, read.row.sample_index))
    return check_faithfulness(
        network,
        [
            Subject(
                attribution=read.result,
                user_tokens=tuple(
                    j for j, is_template in enumerate(read.row.prompt_token_is_template) if not is_template
                ),
            )
            for read in usable[: test.num_sequences]
        ],
        fractions=test.fractions,
        steps_per_sequence=test.steps_per_sequence,
        num_random=test.num_random,
        seed=derive_seed(seed, "faithfulness"),
    )
