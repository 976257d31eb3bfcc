"""Progress of a long piece of work: a bar, a plain line now and then, or a call per step."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

LINE_EVERY_SECONDS = 10.0
SEND_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A training between two steps: `Snapshot(fraction=.5, row={"ppo/reward": .8}, model=..., tokenizer=...)`."""

    fraction: float
    """Share of the planned steps that are done, 0..1."""
    row: Mapping[str, float | int]
    """The newest values of its curves, as far as they are known by then."""
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase


StepCallback = Callable[[Snapshot], None]
"""Called after every step. What it raises ends the training; it draws no global random number and changes no weight."""


class Bar(Protocol):
    """What `progress` hands out."""

    def advance(self, num_done: int = 1, *, note: str = "", total: int | None = None) -> None:
        """Counts `num_done` more units as done.

        Args:
            num_done: how many more.
            note: is shown beside them, e.g. a speed.
            total: units of the whole work, where that has changed.
        """

    def already(self, num_done: int) -> None:
        """Counts units that an earlier run has left done, learnt only now; as done, not as speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarState:
    """A bar: `BarState(title="generate m/ft 0/4", unit="completions", total=120, num_done=40, note="")`."""

    title: str
    unit: str
    total: int
    num_done: int
    note: str


_LISTENER: contextvars.ContextVar[Callable[[BarState], None] | None] = contextvars.ContextVar("listener", default=None)


@contextlib.contextmanager
def send_bars_to(listener: Callable[[BarState], None]) -> Iterator[None]:
    """Inside, bars show nothing; `listener` gets their state at the start, the end, and once a second between."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextlib.contextmanager
def progress(
    title: str,
    *,
    total: int,
    unit: str,
    num_done: int = 0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Bar]:
    """Shows the progress of the block.

    Args:
        title: what is being done, e.g. `generate tiny-neox/it`.
        total: units of the whole work.
        unit: what is counted, in the plural, e.g. `completions`.
        num_done: units that an earlier run has left done; they count as done, not as speed.
        stream: where to write; None is standard error.
        clock: seconds, rising.
    """
    if (listener := _LISTENER.get()) is not None:
        bar = _Sent(title, total, unit, num_done, listener, clock)
        try:
            yield bar
        finally:
            bar.send()
        return
    stream = stream or sys.stderr
    if stream.isatty():
        with _terminal_bar(title, total, unit, num_done, stream) as bar:
            yield bar
        return
    lines = _Lines(title, total, unit, num_done, stream, clock)
    try:
        yield lines
    finally:
        lines.end()


class _Sent:
    """A bar whose state is sent to a listener."""

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        num_done: int,
        listener: Callable[[BarState], None],
        clock: Callable[[], float],
    ) -> None:
        self.title, self.total, self.unit, self.num_done, self.note = title, total, unit, num_done, ""
        self.listener, self.clock = listener, clock
        self.send()

    def advance(self, num_done: int = 1, *, note: str = "", total: int | None = None) -> None:
        self.num_done, self.note = self.num_done + num_done, note
        self.total = self.total if total is None else total
        if self.clock() - self.last_sent >= SEND_EVERY_SECONDS:
            self.send()

    def already(self, num_done: int) -> None:
        self.num_done += num_done

    def send(self) -> None:
        self.last_sent = self.clock()
        self.listener(
            BarState(title=self.title, unit=self.unit, total=self.total, num_done=self.num_done, note=self.note)
        )


class _Lines:
    """A plain line at most every `LINE_EVERY_SECONDS`, and one at the end."""

    def __init__(
        self, title: str, total: int, unit: str, num_done: int, stream: TextIO, clock: Callable[[], float]
    ) -> None:
        self.title, self.total, self.unit, self.stream, self.clock = title, total, unit, stream, clock
        self.num_done = self.num_before = num_done
        self.started = self.last_line = clock()

    def advance(self, num_done: int = 1, *, note: str = "", total: int | None = None) -> None:
        self.num_done += num_done
        self.total = self.total if total is None else total
        now = self.clock()
        if now - self.last_line >= LINE_EVERY_SECONDS and self.num_done < self.total:
            self.last_line = now
            done_here = self.num_done - self.num_before
            left = (now - self.started) / done_here * (self.total - self.num_done) if done_here else None
            self._write(("time left unknown" if left is None else f"{duration(left)} left") + (note and f", {note}"))

    def already(self, num_done: int) -> None:
        self.num_done += num_done
        self.num_before += num_done

    def end(self) -> None:
        self._write(f"{duration(self.clock() - self.started)}")

    def _write(self, end: str) -> None:
        print(f"{self.title}: {self.num_done}/{self.total} {self.unit}, {end}", file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """`48 s`, `3 min 05 s` or `2 h 07 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes_rest = divmod(minutes, 60)
    return f"{minutes} min {rest:02d} s" if hours == 0 else f"{hours} h {minutes_rest:02d} min"


@contextlib.contextmanager
def _terminal_bar(title: str, total: int, unit: str, num_done: int, stream: TextIO) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # speed_estimate_period: seconds over which the ETA averages; batches sorted by length differ in speed.
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(file=stream),
        speed_estimate_period=120,
    )
    with bar:
        task = bar.add_task(title, total=total, completed=num_done, note="")
        yield _Terminal(bar, task)


class _Terminal:
    def __init__(self, bar, task) -> None:
        self.bar, self.task = bar, task

    def advance(self, num_done: int = 1, *, note: str = "", total: int | None = None) -> None:
        self.bar.update(self.task, advance=num_done, note=note, total=total)

    def already(self, num_done: int) -> None:
        self.bar.reset(self.task, completed=int(self.bar.tasks[self.task].completed) + num_done)
