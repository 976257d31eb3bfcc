"""The whole answer: whatever is wrong is a line, and the exit code says whether something is broken."""

import json
import shutil
import subprocess
import sys

from detoxlens.doctor.check import Check
from detoxlens.doctor.report import as_text, examine
from tests.doctor.commands import assert_exists
from tests.root import ROOT


def statuses(checks):
    return {c.name: c.status for c in checks}


def test_an_empty_folder_is_told_line_by_line(tmp_path):
    checks = examine(tmp_path, tmp_path / "params.yaml", {})
    found = statuses(checks)
    assert found["params"] == found["outputs"] == "broken"
    assert found["store"] == "warning" and found["studies"] == "ok"
    told = {c.name: c for c in checks}
    assert "does not exist; run from the project's root, or pass --root PROJECT" in told["params"].detail
    assert "is no DVC repository; run from the project's root" in told["outputs"].detail
    assert told["params"].remedy == told["outputs"].remedy == ""  # git has nothing to remedy here
    for check in checks:
        if check.remedy:
            assert_exists(check.remedy)
    assert not (tmp_path / ".detoxlens").exists()  # looking makes nothing


def test_wrong_params_and_a_wrong_store_hide_no_other_line(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: [")
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("\nbogus: 1\n")
    found = statuses(examine(tmp_path, tmp_path / "params.yaml", {"MLFLOW_TRACKING_URI": "./mlruns"}))
    assert found["params"] == found["outputs"] == found["store"] == "broken"
    assert found["disk"] in ("ok", "warning")


def test_text_has_one_line_per_check_and_counts():
    text = as_text(
        [
            Check(name="a", status="ok", detail="fine"),
            Check(name="long", status="broken", detail="two\nlines", remedy="dvc repro"),
        ]
    )
    assert text == "✓ a     fine\n✗ long  two lines  -> dvc repro\n1 broken, 0 to look at, 1 in order."


def test_the_command_exits_with_1_when_something_is_broken_and_speaks_json(tmp_path):
    command = [sys.executable, "-m", "detoxlens", "--root", str(tmp_path), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == ""
    first = json.loads(done.stdout)[0]
    assert set(first) == {"name", "status", "detail", "remedy"}
