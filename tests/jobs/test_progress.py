"""Progress: a bar on a terminal, sparse plain lines elsewhere."""

import io

import pytest

from detoxlens.jobs.progress import duration, progress, send_bars_to


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(steps: list[tuple[float, int]], *, total: int, num_done: int = 0) -> list[str]:
    """The lines written when `steps` (seconds waited, units then done) are worked through."""
    stream, clock = io.StringIO(), Clock()
    with progress("generate m/it", total=total, unit="rows", num_done=num_done, stream=stream, clock=clock) as bar:
        for seconds, units in steps:
            clock.now += seconds
            bar.advance(units)
    return stream.getvalue().splitlines()


def test_without_a_terminal_lines_are_ten_seconds_apart_and_tell_the_time_left():
    lines = run([(4, 10)] * 10, total=100)  # 10 rows per 4 s; after 12 s 30 are done, 70 are left = 28 s
    assert lines == [
        "generate m/it: 30/100 rows, 28 s left",
        "generate m/it: 60/100 rows, 16 s left",
        "generate m/it: 90/100 rows, 4 s left",
        "generate m/it: 100/100 rows, 40 s",
    ]


def test_what_an_earlier_run_has_done_counts_as_done_but_not_as_speed():
    lines = run([(10, 10)], total=100, num_done=60)  # 10 rows in 10 s, 30 are left = 30 s
    assert lines[0] == "generate m/it: 70/100 rows, 30 s left"


def test_or_it_is_learnt_only_when_the_next_unit_is_done():
    stream, clock = io.StringIO(), Clock()
    with progress("ppo", total=24, unit="steps", stream=stream, clock=clock) as bar:
        clock.now += 12
        bar.already(17)
        bar.advance()
    assert stream.getvalue().splitlines()[0] == "ppo: 18/24 steps, 1 min 12 s left"  # 6 more of 12 s each


def test_short_work_writes_one_line():
    assert run([(1, 5)], total=5) == ["generate m/it: 5/5 rows, 1 s"]


def test_no_work_at_all_is_fine():
    assert run([], total=0) == ["generate m/it: 0/0 rows, 0 s"]
    assert run([(20, 0)], total=7, num_done=3) == [
        "generate m/it: 3/7 rows, time left unknown",
        "generate m/it: 3/7 rows, 20 s",
    ]


def test_an_error_passes_after_the_last_line():
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress("t", total=9, unit="rows", stream=stream, clock=Clock()) as bar:
        bar.advance(4)
        raise KeyboardInterrupt
    assert stream.getvalue() == "t: 4/9 rows, 0 s\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_the_count(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress("attribute m/[it]", total=40, unit="sequences", stream=stream) as bar:
        bar.already(10)
        bar.advance(5)
        bar.advance(25)
    assert "attribute m/[it]" in stream.getvalue() and "40/40" in stream.getvalue() and "sequences" in stream.getvalue()


def test_it_writes_to_standard_error_by_default(capsys):
    with progress("t", total=1, unit="rows") as bar:
        bar.advance()
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("t: 1/1 rows")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_listener_is_told_instead_of_the_terminal():
    told, stream, clock = [], io.StringIO(), Clock()
    with (
        send_bars_to(told.append),
        progress("generate m/ft 0/2", total=9, unit="completions", num_done=2, stream=stream, clock=clock) as bar,
    ):
        for seconds in (0.5, 0.9, 1.0, 1.5):  # once a second
            clock.now = seconds
            bar.advance(1, note=f"at {seconds}")
    assert stream.getvalue() == ""
    assert [(r.num_done, r.note) for r in told] == [(2, ""), (5, "at 1.0"), (6, "at 1.5")]
    assert {(r.title, r.unit, r.total) for r in told} == {("generate m/ft 0/2", "completions", 9)}
    with progress("then", total=1, unit="x", stream=stream):
        pass
    assert stream.getvalue().startswith("then: 0/1 x") and len(told) == 3


def test_the_total_may_become_known_later():
    stream, clock = io.StringIO(), Clock()
    with progress("work", total=0, unit="rows", stream=stream, clock=clock) as bar:
        clock.now = 10.0
        bar.advance(5, total=20)
        bar.advance(15)
    assert stream.getvalue() == "work: 5/20 rows, 30 s left\nwork: 20/20 rows, 10 s\n"
