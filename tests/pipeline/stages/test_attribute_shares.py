"""Stage attribute by several processes: the same bytes as by one, whoever is killed and whenever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detoxlens.attribution import attribute as attribute_sequences
from detoxlens.attribution import resumable
from detoxlens.common.errors import UserError
from detoxlens.jobs.scratch import open_scratch
from detoxlens.jobs.shares import Share
from detoxlens.pipeline.stages import attribute
from tests.pipeline.stages.study import make_study
from tests.pipeline.stages.test_attribute import params, write_completions
from tests.root import ROOT

MANY = {"batch_size": 1, "max_sequences": 99}
WORKER = """
import sys
from pathlib import Path
from detoxlens.jobs.shares import parse_share
from detoxlens.pipeline.stages import attribute
from tests.pipeline.stages.test_attribute_shares import MANY, params
share = None if sys.argv[2] == "whole" else parse_share(sys.argv[2], {})
attribute.run(Path(sys.argv[1]), params(**MANY), model="m", variant="ft", share=share)
"""


@pytest.fixture
def layout(tmp_path):
    layout = make_study(tmp_path)
    write_completions(layout, num=12)
    return layout


def run(layout, share: Share | None = None, **changes) -> None:
    attribute.run(layout.root, params(**changes), model="m", variant="ft", share=share)


def outs(layout) -> tuple[bytes, bytes]:
    """What the stage has written; it is taken away, as DVC does before the next run."""
    paths = layout.attributions("m", "ft"), layout.faithfulness("m", "ft")
    contents = tuple(path.read_bytes() for path in paths)
    for path in paths:
        path.unlink()
    return contents


def logs(layout) -> dict[str, int]:
    """Finished batches by file."""
    return {p.name: p.read_bytes().count(b"\n") for p in layout.state.glob("scratch/*/*/batches*.jsonl")}


def counting(monkeypatch) -> list[int]:
    """Sequences per batch that is attributed from now on."""
    seen: list[int] = []

    def counts(*args, **kwargs):
        seen.append(len(kwargs["prompt_ids"]))
        return attribute_sequences(*args, **kwargs)

    monkeypatch.setattr(resumable, "attribute", counts)
    return seen


def test_shares_one_after_another_give_the_bytes_of_one_process(layout, monkeypatch, caplog):
    caplog.set_level("INFO", "detoxlens.jobs.batches")
    run(layout)
    whole = outs(layout)
    run(layout, Share(1, 2))
    run(layout, Share(0, 2))
    assert "share 1/2 is done; other shares have 6 completions left. Then the same command" in caplog.messages[0]
    assert "share 0/2 is done, and so are all others: the same command without --share" in caplog.messages[1]
    assert not layout.attributions("m", "ft").exists()  # the run without a share writes the outs
    name = "batches-{}-input_x_gradient+share-{}-of-2.jsonl"
    assert logs(layout) == {
        **{name.format("ft", share): 2 for share in (0, 1)},  # four batches: own text and that of `it`
        **{name.format("it", share): num for share, num in ((0, 1), (1, 1))},  # two: `it` on the test answers of `ft`
    }
    seen = counting(monkeypatch)
    run(layout)
    assert seen == []
    assert outs(layout) == whole
    assert not list(layout.state.glob("scratch/*/*"))  # no folder and no lock is left


def test_what_a_share_left_undone_the_whole_does(layout, monkeypatch):
    run(layout)
    whole = outs(layout)
    run(layout, Share(2, 3))
    num_done = sum(logs(layout).values())
    seen = counting(monkeypatch)
    run(layout)
    assert len(seen) == 6 - num_done == 5
    assert outs(layout) == whole


def test_a_share_does_not_repeat_what_another_cut_of_the_work_has_done(layout, monkeypatch):
    run(layout, Share(0, 1))
    seen = counting(monkeypatch)
    run(layout, Share(1, 2))
    assert seen == []


def test_a_share_is_refused_where_the_same_share_or_the_whole_is_at_work(layout, monkeypatch):
    refused = []

    def meanwhile(*args, **kwargs):
        for other in (Share(0, 2), None):
            with pytest.raises(UserError) as e:
                run(layout, other)
            refused.append(str(e.value))
        return attribute_sequences(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(resumable, "attribute", meanwhile)
        run(layout, Share(0, 2))
    assert all("attribute@m-ft (share-0-of-2) is already running" in text for text in refused)
    key = next(p.name for p in layout.state.glob("scratch/attribute@m-ft/*") if p.is_dir())
    monkeypatch.setattr("detoxlens.jobs.scratch.WAIT_SECONDS", 0.1)
    with open_scratch(layout.state, "attribute@m-ft", key), pytest.raises(UserError, match="attribute@m-ft is already"):
        run(layout, Share(1, 2))


def start(layout, share: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(layout.root), share], env=environment, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def kill_midway(process: subprocess.Popen, log: Path) -> None:
    """SIGKILL when a few batches are on disk."""
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_two_processes_at_once_give_the_bytes_of_one(layout):
    write_completions(layout, num=80)
    run(layout, **MANY)
    whole = outs(layout)
    shares = [start(layout, "0/2"), start(layout, "1/2")]
    for process in shares:
        finish(process)
    assert sorted(logs(layout)) == ["batches+share-0-of-2.jsonl", "batches+share-1-of-2.jsonl"]
    run(layout, **MANY)
    assert outs(layout) == whole


@pytest.mark.slow
@pytest.mark.parametrize("share", ["whole", "0/2"])
def test_kill_minus_nine_costs_at_most_one_batch_and_no_byte(layout, monkeypatch, share):
    write_completions(layout, num=300)
    run(layout, **MANY)
    whole = outs(layout)
    process = start(layout, share)
    while not (folders := [p for p in layout.state.glob("scratch/*/*") if p.is_dir()]):
        time.sleep(0.01)
    name = "batches.jsonl" if share == "whole" else "batches+share-0-of-2.jsonl"
    kill_midway(process, folders[0] / name)
    num_batches = len(json.loads((folders[0] / "plan.json").read_text()))
    num_done = logs(layout)[name]
    assert 3 <= num_done < num_batches
    seen = counting(monkeypatch)
    run(layout, **MANY)
    assert len(seen) == num_batches - num_done  # a batch that was not on disk whole is done again, no other
    assert outs(layout) == whole
