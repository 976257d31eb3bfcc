"""Stages as shares on a local Ray cluster of two workers: the same bytes as one process, whoever is killed."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from detoxlens.common.artifacts import Layout
from detoxlens.params.load import load_params
from tests.models.checkpoints import TEMPLATE, save_classifier
from tests.pipeline.stages.study import make_study
from tests.ray_cluster import ray_cluster
from tests.root import ROOT
from tests.scorers.fake_service import FakeService

__all__ = ["ray_cluster"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
RAY = ("--engine", "ray")


@pytest.fixture
def layout(tmp_path) -> Layout:
    """A small study with a params.yaml, its work in many small batches."""
    layout = make_study(tmp_path)
    save_classifier(tmp_path / "judge", seed=1)
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["models"] = {"m": {"source": "models/m/base", "template": TEMPLATE}}
    raw["variants"] = {"it": {"kind": "base"}, "ft": {"kind": "sft"}}
    raw["run"] |= {"models": ["m"], "variants": ["it", "ft"], "rl_variants": [], "num_threads": 1}
    raw["generation"] |= {"max_new_tokens": 12, "num_samples": 40, "batch_size": 2}
    raw["toxicity"] |= {"scorers": ["profanity_check", "hf:judge"]}
    raw["attribution"] |= {"batch_size": 2, "samples_per_prompt": 20}
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(raw, file)
    return layout


def run(layout, stage: str, variant: str = "ft") -> None:
    """The stage in this process."""
    params = load_params(layout.root / "params.yaml")
    importlib.import_module(f"detoxlens.pipeline.stages.{stage}").run(layout.root, params, model="m", variant=variant)


def begin(layout, stage: str, *more: str, **environment: str) -> subprocess.Popen:
    """`detoxlens <stage>` in a process of its own."""
    command = [sys.executable, "-m", "detoxlens", "--root", str(layout.root), "--no-track", stage]
    return subprocess.Popen(
        [*command, "--model", "m", "--variant", "ft", *more],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
    )


def finish(process: subprocess.Popen, *, status: int = 0) -> str:
    said, _ = process.communicate(timeout=180)
    assert process.returncode == status, said
    return said


def outs(layout, stage: str, *, keep: bool = False) -> dict[str, bytes]:
    """What the stage has written for `ft`; it is taken away, as DVC does before the next run, or kept for the next."""
    files = {
        "generate": [layout.completions],
        "score": [layout.scores, layout.fluency],
        "attribute": [layout.attributions, layout.faithfulness],
    }[stage]
    paths = [file("m", "ft") for file in files]
    found = {path.name: path.read_bytes() for path in paths}
    for path in [] if keep else paths:
        path.unlink()
    return found


def logs(layout) -> dict[Path, int]:
    """Finished batches by file."""
    return {p: p.read_bytes().count(b"\n") for p in layout.state.glob("scratch/*/*/*.jsonl")}


def kill_midway(layout, process: subprocess.Popen, name: str, pid_file: str | None) -> int:
    """SIGKILL, when a few batches of the log `name` are on disk, of who holds it; the number of them then."""
    deadline = time.monotonic() + 120
    while not (found := [p for p, num in logs(layout).items() if p.name == name and num >= 3]):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    pid = process.pid if pid_file is None else int((found[0].parent / pid_file).read_text())
    os.kill(pid, signal.SIGKILL)
    return logs(layout)[found[0]]


def test_the_stages_give_the_bytes_of_one_process(layout, ray_cluster):
    run(layout, "generate", variant="it")
    for stage in ("generate", "score", "attribute"):
        run(layout, stage)
        whole = outs(layout, stage)
        said = finish(begin(layout, stage, DETOXLENS_ENGINE="ray"))  # as under `dvc repro`
        assert outs(layout, stage, keep=True) == whole
        assert f"{stage} m/ft: " in said and "pid=" not in said
        assert not list(layout.state.glob("scratch/*/*"))


def test_a_killed_worker_loses_no_row(layout, ray_cluster):
    run(layout, "generate")
    whole = outs(layout, "generate")
    process = begin(layout, "generate", *RAY, "--shares", "2")
    kill_midway(layout, process, "batches+share-0-of-2.jsonl", "owner.share-0-of-2")
    finish(process)
    assert outs(layout, "generate") == whole


def test_ctrl_c_stops_the_tasks_and_keeps_what_they_have_done(layout, ray_cluster):
    run(layout, "generate")
    whole = outs(layout, "generate")
    process = begin(layout, "generate", *RAY)
    deadline = time.monotonic() + 120
    while not any(num >= 3 for num in logs(layout).values()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert "Interrupted. What was finished is kept" in finish(process, status=130)
    before = logs(layout)
    time.sleep(1)
    assert logs(layout) == before and before
    run(layout, "generate")
    assert outs(layout, "generate") == whole


def test_a_cluster_of_its_own_leaves_nothing_behind(layout):
    run(layout, "generate")
    whole = outs(layout, "generate")
    with tempfile.TemporaryDirectory() as folder:
        own = {"TMPDIR": folder, "HOME": folder, "RAY_ADDRESS": ""}
        finish(begin(layout, "generate", *RAY, "--shares", "2", "--cpus-per-share", "1", **own))
        assert [p for p in Path(folder).iterdir() if "ray" in p.name] == []
        listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert folder not in listed
    assert outs(layout, "generate") == whole


KEY = "zorgon-sentinel-key-0123456789"
SITE = """
import importlib
service = importlib.import_module("detoxlens.scorers.openai_moderation")  # the package has a function of that name
service.openai_moderation_service.__kwdefaults__["endpoint"] = {url!r}
service.QUERIES_PER_SECOND, service.BATCH_SIZE = 8.0, 4
"""
"""What every process of the job runs first, as `sitecustomize`: the service is on loopback."""


def test_a_key_reaches_the_tasks_of_a_joined_cluster_and_is_seen_nowhere(layout, ray_cluster, tmp_path):
    run(layout, "generate")
    yaml = YAML()
    raw = yaml.load(layout.root / "params.yaml")
    raw["toxicity"]["scorers"] = ["profanity_check", "openai_moderation"]
    yaml.dump(raw, layout.root / "params.yaml")
    with FakeService() as service:
        (tmp_path / "sitecustomize.py").write_text(SITE.format(url=service.url))
        path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
        process = begin(layout, "score", *RAY, OPENAI_API_KEY=KEY, PYTHONPATH=path)
        shown = ""
        while process.poll() is None:
            shown += subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
            for pid in workers():  # the environment that `ps e` and /proc list
                with contextlib.suppress(OSError):
                    shown += Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
            time.sleep(0.2)
        said = finish(process)
    assert service.keys == {f"Bearer {KEY}"} and set(service.answered.values()) == {1}
    assert "ray::score m/ft" in shown and "RAY_" in shown
    assert KEY not in said and KEY not in shown
    files = [p for p in [*Path(ray_cluster.folder).rglob("*"), *layout.root.rglob("*")] if p.is_file()]
    assert any("worker" in p.name and p.suffix == ".out" for p in files)
    assert [p for p in files if KEY.encode() in p.read_bytes()] == []


def workers() -> list[int]:
    """Process ids of Ray's workers."""
    found = subprocess.run(["pgrep", "-f", "^ray::"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_sigkill_of_generate_costs_at_most_one_batch_and_no_byte(layout):
    run(layout, "generate")
    whole = outs(layout, "generate")
    process = begin(layout, "generate")
    num_done = kill_midway(layout, process, "batches.jsonl", None)
    finish(process, status=-signal.SIGKILL)
    assert not layout.completions("m", "ft").exists()
    (log,) = logs(layout)
    first = log.read_bytes()
    plan = (log.parent / "plan.json").read_text().count("[") - 1
    assert 3 <= num_done < plan
    stopped = begin(layout, "generate")
    while log.exists() and log.read_bytes().count(b"\n") < plan and stopped.poll() is None:
        assert log.read_bytes().startswith(first[: first.rindex(b"\n") + 1])  # it goes on behind what was there
        time.sleep(0.01)
    said = finish(stopped)
    assert outs(layout, "generate") == whole
    num_tokens = int(said.split("tokens,")[0].split()[-1])
    assert num_tokens < 12 * 280  # fewer than a whole run samples
