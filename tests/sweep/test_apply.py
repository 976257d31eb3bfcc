"""What a trial was built on is still what `dvc repro` would build on."""

import subprocess
import sys

from detoxlens.sweep.apply import outdated


def test_a_stage_that_dvc_would_run_again_is_named(tmp_path):
    assert outdated(tmp_path, ["base@m"]) == []  # no DVC project

    def dvc(*arguments):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "params.yaml").write_text("steps: 1\n")
    stages = "stages: {base: {foreach: [m], do: {cmd: echo 1 > made, params: [steps], outs: [made]}}}\n"
    (tmp_path / "dvc.yaml").write_text(stages)
    dvc("init", "--no-scm")
    dvc("repro")
    assert outdated(tmp_path, ["base@m"]) == []
    (tmp_path / "params.yaml").write_text("steps: 2\n")
    assert outdated(tmp_path, ["base@m"]) == ["base@m"]
