"""Work in numbered batches that outlives a kill: each is on disk before the next begins, by one process or by several.

    <name>*.jsonl in the scratch folder, a line:     {"batch": number in the plan, "results": [a value per row]}

A plan is a list of batches of row numbers, the same in every process. Share 1/4 does batches 1, 5, 9, ... that it does
not find done; a run without a share does all that is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detoxlens.jobs.progress import Bar
from detoxlens.jobs.scratch import Scratch
from detoxlens.jobs.shares import Share

log = logging.getLogger(__name__)


class Batches:
    """The batches of one plan, and what is known of them."""

    def __init__(
        self, scratch: Scratch, plan: Sequence[Sequence[int]], *, name: str = "batches", share: Share | None = None
    ) -> None:
        """Reads what an earlier, or another, process has finished.

        Args:
            scratch: opened for the whole, or for the part that `share` is.
            plan: the rows of each batch.
            name: of the logs; each plan of a stage has its own.
            share: does its own batches only; None does all that are left.
        """
        self._scratch, self._plan, self._name, self._share = scratch, plan, name, share
        finished = {line["batch"] for line in self._lines()}
        mine = [number for number in range(len(plan)) if share is None or share.takes(number)]
        self._left = [number for number in mine if number not in finished]
        self.num_rows = sum(len(plan[number]) for number in mine)
        """Rows of this process's batches."""
        self.num_done = self.num_rows - sum(len(plan[number]) for number in self._left)
        """Those of them that were finished before it began."""

    def run(
        self, work: Callable[[Sequence[int]], list[Any]], bar: Bar, *, note: Callable[[], str] = lambda: ""
    ) -> dict[int, Any]:
        """Does what is left, and returns a result by row: of every row, or, of a share, of what all have finished.

        Args:
            work: row numbers of a batch -> one result per row, in their order, that JSON can hold.
            bar: advanced by the rows of each batch.
            note: what stands beside it.
        """
        return dict(self.results(work, bar, note=note))

    def results(
        self, work: Callable[[Sequence[int]], list[Any]], bar: Bar, *, note: Callable[[], str] = lambda: ""
    ) -> Iterator[tuple[int, Any]]:
        """The same as (row, result), a batch of them in memory at a time. What is left is done before this returns."""
        kept = self._scratch.log(self._name)
        for number in self._left:
            kept.append([{"batch": number, "results": work(self._plan[number])}])
            bar.advance(len(self._plan[number]), note=note())
        self._left = []
        return self._all()

    def _all(self) -> Iterator[tuple[int, Any]]:
        given = set()
        for line in self._lines():  # those of all shares, which went on meanwhile
            if line["batch"] not in given:
                given.add(line["batch"])
                yield from zip(self._plan[line["batch"]], line["results"], strict=True)

    def _lines(self) -> Iterator[dict[str, Any]]:
        return self._scratch.each_logged(self._name)


def tell_share_done(title: str, share: Share, *, num_left: int, unit: str) -> None:
    """Says that a share is done, and what is to be done next."""
    others = f"; other shares have {num_left} {unit} left. Then" if num_left else ", and so are all others:"
    log.info(
        "%s: share %s is done%s the same command without --share, or dvc repro, writes the result.",
        title,
        share,
        others,
    )
