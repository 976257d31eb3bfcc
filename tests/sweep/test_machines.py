"""Several machines on one study: projects with state folders of their own, which share a storage and nothing else."""

import os
import shutil
import signal
import time

import pytest

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.sweep.liveness import HOME
from detoxlens.sweep.storage import open_storage
from tests.sweep.postgres import PASSWORD, postgres
from tests.sweep.project import begin, main
from tests.sweep.project import trials_of as all_trials_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(params=["postgresql", "journal"])
def storage(request, tmp_path):
    """URL of a fresh storage that both machines reach."""
    if request.param == "journal":
        yield f"journal:{tmp_path}/studies.journal"
        return
    with postgres() as server:
        yield server.url


@pytest.fixture
def machines(root, tmp_path):
    """Two copies of a prepared project; one that is silent for 3 s is given up. Trials last a while."""
    copies = [tmp_path / name for name in ("one", "two")]
    for copy in copies:
        shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns(".detoxlens", "kept", "reports"))
        text = (copy / "params.yaml").read_text("utf-8")
        for old, new in (("heartbeat_seconds: 20", "heartbeat_seconds: 1"), ("num_steps: 2\n", "num_steps: 12\n")):
            assert text.count(old) == 1
            text = text.replace(old, new)
        (copy / "params.yaml").write_text(text, "utf-8")
    return copies


def trials_of(url, machine):
    try:
        return all_trials_of(machine, "shared", url)
    except UserError:  # not made yet
        return []


def test_machines_join_by_name_and_a_dead_ones_trial_is_tried_once_more(storage, machines):
    one, two = machines
    first = begin(one, "shared", 12, url=storage)
    second = begin(two, "shared", 12, "--join", url=storage)
    deadline = time.monotonic() + 120
    while not both_at_work(trials_of(storage, one), one):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)  # a power cut: machine one is gone for good
    first.wait()
    assert second.wait(timeout=240) == 0
    trials = trials_of(storage, two)
    states = [t.state.name for t in trials]
    assert states.count("COMPLETE") == 12 and not {"RUNNING", "WAITING"} & {*states}
    failed = [t for t in trials if t.state.name == "FAIL"]
    assert len(failed) == 1 and failed[0].user_attrs[HOME] == home(one)
    again = [t for t in trials if t.system_attrs.get("failed_trial") == failed[0].number]
    assert [t.params for t in again] == [failed[0].params] and again[0].user_attrs[HOME] == home(two)


def home(machine):
    return (Layout(machine).state / "home-id").read_text()


def both_at_work(trials, machine):
    """Has each machine begun a trial, and is this one in the middle of one?"""
    running = [t for t in trials if t.state.name == "RUNNING" and t.params]
    return len({t.user_attrs[HOME] for t in trials if HOME in t.user_attrs}) == 2 and any(
        t.user_attrs.get(HOME) == home(machine) for t in running
    )


def test_the_same_study_goes_on_after_the_server_was_down(machines, monkeypatch, capsys):
    """Down at the start: one paragraph without the password. Restarted between two sweeps: nothing is lost."""
    (one, _) = machines
    with postgres() as server:
        monkeypatch.setenv("DETOXLENS_STORAGE", server.url)
        assert begin(one, "shared", 2, url=server.url).wait(timeout=240) == 0
        server.stop()
        assert main(monkeypatch, one, "--trials", "3", "--study", "shared") == 2
        said = capsys.readouterr().err
        assert f"--storage postgresql://127.0.0.1:{server.port}/postgres cannot be used" in said
        assert PASSWORD not in said and "Traceback" not in said
        server.start()
        assert begin(one, "shared", 3, url=server.url).wait(timeout=240) == 0
        assert [t.state.name for t in trials_of(server.url, one)] == ["COMPLETE"] * 3


def test_a_wrong_password_is_told_without_it(tmp_path):
    with postgres() as server:
        url = server.url.replace(PASSWORD, "wrong-one")
        with pytest.raises(UserError, match="password authentication failed") as caught:
            open_storage(url, tmp_path)
    assert "wrong-one" not in str(caught.value) and "\n" not in str(caught.value)
