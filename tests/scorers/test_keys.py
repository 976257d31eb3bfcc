"""A key from the environment reaches the service and nothing else: no log, run, cache, table, error or process list."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from detoxlens.common.artifacts import write_rows
from detoxlens.common.records import Completion
from tests.pipeline.stages.study import make_study
from tests.scorers.fake_service import FakeService, error

KEY = "zorgon-sentinel-key-9876543210"
ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib, sys
from pathlib import Path
perspective, remote = (importlib.import_module(f"detoxlens.scorers.{name}") for name in ("perspective", "remote"))
perspective.perspective_service.__kwdefaults__["endpoint"] = sys.argv[1]
perspective.QUERIES_PER_SECOND, remote.MAX_WAIT_SECONDS = 10.0, 0.01
sys.argv = ["detoxlens", "--root", sys.argv[2], "score", "--model", "tiny-neox", "--variant", "it"]
from detoxlens.cli import main
main()
"""


@pytest.mark.slow
def test_a_tracked_stage_leaves_the_key_nowhere(tmp_path):
    layout = make_study(tmp_path)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["models"]["tiny-neox"]["source"] = "models/m/base"
    params["toxicity"] |= {"scorers": ["profanity_check", "perspective"]}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    (tmp_path / "adapters/tiny-neox").symlink_to(tmp_path / "adapters/m")
    (tmp_path / "models/tiny-neox").symlink_to(tmp_path / "models/m")
    rows = [
        Completion(
            prompt_id=f"{n:016x}",
            sample_index=0,
            split="test",
            filters=("p50",),
            prompt="Zorgons?",
            prompt_ids=(5, 9),
            prompt_token_is_template=(True, False),
            completion=f"They hum {n}.",
            completion_ids=(5, 6),
            finish_reason="eos",
            seed=n,
        )
        for n in range(30)
    ]
    write_rows(layout.completions("tiny-neox", "it"), rows, Completion)
    environment = os.environ | {"PERSPECTIVE_API_KEY": KEY, "PYTHONPATH": str(ROOT / "src")}

    def trouble(text, attempt):
        if text == "They hum 3.":
            return error(400, f"{KEY} may not ask this")
        return error(403, f"{KEY} was revoked") if text == stop_at else None

    with FakeService(trouble) as service:
        said = ""
        for stop_at, status in (("They hum 20.", 2), ("", 0)):
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, service.url, str(tmp_path)],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            while process.poll() is None and not service.asked["They hum 10."]:
                time.sleep(0.02)
            listed = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
            out, _ = process.communicate(timeout=120)
            assert process.returncode == status, out
            said += out
            assert str(process.pid) in listed or stop_at == ""
            assert KEY not in listed
    assert "refused the key in PERSPECTIVE_API_KEY" in said and KEY not in said
    assert service.keys == {KEY}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    # The run is in MLflow's store, or waits in pending-runs where there is none yet.
    assert any(path.name == "mlflow.db" or "pending-runs" in path.parts for path in files)
    assert any(path.name == "scores.sqlite" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
