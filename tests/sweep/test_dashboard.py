"""optuna-dashboard on studies of `detoxlens sweep`, as docs/cluster.md starts it: what its pages are made of."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.root import ROOT
from tests.sweep.postgres import postgres
from tests.sweep.project import begin, trials_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def documented_commands():
    """The page's lines that start the dashboard, as lists of words."""
    page = (ROOT / "docs/cluster.md").read_text("utf-8")
    return [line.split("#")[0].split() for line in page.splitlines() if line.startswith("    optuna-dashboard ")]


@contextlib.contextmanager
def dashboard(command, cwd):
    """Its address, while the command runs in `cwd` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(Path(sys.executable).parent / command[0])
    server = subprocess.Popen(
        [program, *command[1:], "--port", str(port)], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            assert server.poll() is None, "the dashboard has ended"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=2).close()
                break
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait()


def asked(address):
    with urllib.request.urlopen(address, timeout=20) as answer:
        return json.load(answer)


def test_the_dashboard_shows_a_sweeps_objectives_trials_and_values(root):
    pytest.importorskip("optuna_dashboard", reason="pip install -e '.[dashboard]' -c constraints.txt")
    of_sqlite, of_journal, of_postgres = documented_commands()
    with postgres() as server:
        (root / of_postgres[-1]).write_text(f'[optuna_dashboard]\nstorage = "{server.url}"\n')
        check(root, of_sqlite, None)
        check(root, of_journal, f"journal:{root / of_journal[-1]}")
        check(root, of_postgres, server.url)


def check(root, command, storage):
    assert begin(root, "shown", 2, url=storage).wait(timeout=240) == 0
    trials = trials_of(root, "shown", storage)
    with dashboard(command, root) as address:
        (summary,) = asked(f"{address}/api/studies")["study_summaries"]
        study = asked(f"{address}/api/studies/{summary['study_id']}")
    assert summary["study_name"] == "shown" and summary["directions"] == ["minimize"] * 2
    assert study["objective_names"] == ["toxicity/val/rate_gt_50", "attribution/val/entropy_shift_bits/absolute/value"]
    assert [(t["state"], t["values"]) for t in study["trials"]] == [("Complete", t.values) for t in trials]
    for shown, trial in zip(study["trials"], trials, strict=True):
        assert {p["name"]: p["param_external_value"] for p in shown["params"]} == {
            name: str(value) for name, value in trial.params.items()
        }
    assert {p["name"] for p in study["union_search_space"]} == set(trials[0].params)
