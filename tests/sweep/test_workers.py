"""Processes that work on one study: who is replaced, and who is not."""

import signal
import subprocess
import sys

import pytest

from detoxlens.sweep import workers


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)


def scripted(*programs):
    """Starts the programs one after another; the last one again and again."""
    started = []

    def start():
        program = programs[min(len(started), len(programs) - 1)]
        started.append(subprocess.Popen([sys.executable, "-c", program]))
        return started[-1]

    return start, started


KILLED = "import os; os.kill(os.getpid(), 9)"


def test_a_killed_worker_is_replaced_and_one_that_gave_up_is_not(caplog):
    start, started = scripted(KILLED, "raise SystemExit(2)", "pass")
    assert sorted(workers.supervise(start, 2)) == [-signal.SIGKILL, 0, 2]
    assert len(started) == 3 and "killed by signal 9; another takes its place" in caplog.text


def test_workers_that_die_again_and_again_are_given_up():
    start, started = scripted(KILLED)
    assert workers.supervise(start, 1) == [-signal.SIGKILL] * 3
    assert len(started) == 3


def test_ctrl_c_ends_every_worker(monkeypatch):
    start, started = scripted("import time; time.sleep(60)")

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(workers.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workers.supervise(start, 2)
    assert [w.returncode for w in started] == [-signal.SIGTERM] * 2
