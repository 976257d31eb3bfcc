"""Measures of every completion of a variant, in batches that outlive a kill, as columns in the completions' order.

Rows are read in blocks of neighbours, and no batch is of two blocks: what is in memory is a block and the columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from detoxlens.common.arrow import arrow_schema
from detoxlens.common.columns import Table
from detoxlens.common.records import Completion, Score
from detoxlens.common.scoring import CachedService, ScoredText, Scorer
from detoxlens.jobs.batches import Batches
from detoxlens.jobs.progress import Bar
from detoxlens.jobs.shares import Share
from detoxlens.models.generation import plan_batches
from detoxlens.recorded.scores import Recorded, Tally
from detoxlens.scorers.remote import unique_texts

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**16
"""Completions that are in memory as records."""
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measure(Generic[T]):
    """One thing that is measured of the completions."""

    num_rows: int
    """What this process has to do of it."""
    num_done: int
    """How much of that was done before."""
    run: Callable[[Bar], T | int]
    """Does the rest and returns what was measured of all; of a share, the number of rows that others have left."""


class Blocks:
    """The completions of a table by number, a block of them in memory at a time."""

    def __init__(self, completions: Table[Completion]) -> None:
        self.completions, self._number, self._rows = completions, -1, list[Completion]()

    def at(self, rows: Sequence[int]) -> list[Completion]:
        """Of rows that are all in one block, in the given order."""
        number = rows[0] // BLOCK
        if number != self._number:
            self._number, self._rows = number, self.completions[number * BLOCK : (number + 1) * BLOCK]
        return [self._rows[row - number * BLOCK] for row in rows]

    def __iter__(self) -> Iterator[list[Completion]]:
        for start in range(0, len(self.completions), BLOCK):
            yield self.at(range(start, min(start + BLOCK, len(self.completions))))


def plan_of(splits: Sequence[str], lengths: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """Batches of similar length, of rows of one block. No batch mixes splits: company changes the last bits, and a
    sweep, which has the validation prompts alone, is to find the same numbers.
    """
    plan: list[list[int]] = []
    for start in range(0, len(splits), BLOCK):
        block = range(start, min(start + BLOCK, len(splits)))
        by_split: dict[str, list[int]] = {}
        for i, split in zip(block, splits[start : start + BLOCK], strict=True):
            by_split.setdefault(split, []).append(i)
        for members in by_split.values():
            batches = plan_batches([int(lengths[i]) for i in members], batch_size)
            plan += [[members[k] for k in batch] for batch in batches]
    return plan


def num_tokens(completions: Table[Completion], name: str) -> np.ndarray:
    """(rows,) lengths of `prompt_ids` or `completion_ids`."""
    parts = [batch.column(0).value_lengths().to_numpy() for batch in completions.batches(name)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def kept_batches(
    batches: Batches,
    blocks: Blocks,
    measure: Callable[[list[Completion]], list[R]],
    gather: Callable[[Iterable[tuple[int, dict[str, Any]]]], T],
    *,
    share: Share | None,
) -> Measure[T]:
    """What is computed here, a batch at a time.

    Args:
        batches: of the plan, with what is done of it.
        blocks: the completions.
        measure: gives a record per completion.
        gather: puts (row, record as JSON keeps it) together, which come in the order of the work.
        share: does its own batches only.
    """

    def work(rows: Sequence[int]) -> list[dict[str, Any]]:
        return [dataclasses.asdict(row) for row in measure(blocks.at(rows))]

    def run(bar: Bar) -> T | int:
        found = batches.results(work, bar)
        return gather(found) if share is None else len(blocks.completions) - sum(1 for _ in found)

    return Measure(batches.num_rows, batches.num_done, run)


def asked(scorer: Scorer, blocks: Blocks, share: Share | None) -> Measure[pa.Table]:
    """What others have said, or say now. A share asks a service about its part of the texts, no two about the same."""
    completions = blocks.completions
    if share is None:

        def ask_all(bar: Bar) -> pa.Table:
            return gathered(enumerate(map(dataclasses.asdict, _told(scorer, blocks, bar))), Score)

        return Measure(len(completions), 0, ask_all)
    if scorer.source == "file":  # read when the shares are put together; costs nothing
        return Measure(0, 0, lambda bar: 0)
    service = cast(CachedService, scorer)
    service.divide_pace(share.count)
    texts = unique_texts([text for (text,) in completions.values("completion")])
    mine = [text for number, text in enumerate(texts) if share.takes(number)]

    def ask(bar: Bar) -> int:
        service.score(mine)
        bar.advance(len(mine))
        return len(texts) - len(service.known(texts))

    return Measure(len(mine), 0, ask)


def _told(scorer: Scorer, blocks: Blocks, bar: Bar) -> Iterator[Score]:
    """A file's verdicts block by block; a service is asked about all texts at once."""
    if not isinstance(scorer, Recorded):
        rows = score_completions(scorer, list(blocks.completions))
        bar.advance(len(rows))
        yield from rows
        return
    tally = Tally()
    for part in blocks:
        yield from score_rows(scorer, part, scorer.verdicts(*_texts_and_keys(part), tally))
        bar.advance(len(part))
    scorer.check(tally)


def score_completions(scorer: Scorer, completions: list[Completion]) -> list[Score]:
    """One row per completion, in their order."""
    return score_rows(scorer, completions, scorer.score(*_texts_and_keys(completions)))


def _texts_and_keys(completions: Sequence[Completion]) -> tuple[list[str], list[tuple[str, int]]]:
    return [c.completion for c in completions], [(c.prompt_id, c.sample_index) for c in completions]


def score_rows(scorer: Scorer, completions: Sequence[Completion], verdicts: Sequence[ScoredText]) -> list[Score]:
    """A scorer's verdicts as rows of its table."""
    return [
        Score(
            prompt_id=completion.prompt_id,
            sample_index=completion.sample_index,
            scorer=scorer.name,
            scorer_version=scorer.version,
            label=scorer.label,
            activation=scorer.activation,
            truncated=scored.truncated,
            toxicity=scored.toxicity,
            status=scored.status,
            error=scored.error,
        )
        for completion, scored in zip(completions, verdicts, strict=True)
    ]


def gathered(results: Iterable[tuple[int, dict[str, Any]]], cls: type) -> pa.Table:
    """Results as columns, in the order of their rows."""
    import pyarrow as pa

    schema = arrow_schema(cls)
    parts, rows, kept = [schema.empty_table()], np.zeros(0, np.int64), list[dict[str, Any]]()
    numbers: list[int] = []

    def put() -> None:
        nonlocal rows
        parts.append(pa.Table.from_pylist(kept, schema=schema))
        rows = np.concatenate([rows, np.array(numbers, np.int64)])
        kept.clear()
        numbers.clear()

    for number, result in results:
        numbers.append(number)
        kept.append(result)
        if len(kept) == BLOCK:
            put()
    put()
    table = pa.concat_tables(parts)
    return table if (np.diff(rows) > 0).all() else table.take(pa.array(np.argsort(rows)))
