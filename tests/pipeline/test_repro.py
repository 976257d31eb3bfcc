"""`detoxlens repro` writes what was asked into params.yaml and runs DVC."""

import shutil
import subprocess
from pathlib import Path

import pytest

from detoxlens.common.errors import UserError
from detoxlens.pipeline import repro as pipeline
from detoxlens.pipeline.repro import repro
from tests.root import ROOT


@pytest.fixture
def params_file(tmp_path):
    return shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"models": "tiny-nox"}, "Did you mean 'tiny-neox'"),
        ({"variants": "it,fff"}, "variants has no 'fff'"),
        ({"variants": "ft"}, "must contain 'it'"),
        ({"seed": "-1"}, "seed='-1' must be a whole number"),
    ],
)
def test_a_mistake_leaves_the_file_as_it_was(params_file, asked, told):
    before = params_file.read_bytes()
    with pytest.raises(UserError, match=told):
        repro(params_file.parent, params_file, **asked)
    assert params_file.read_bytes() == before


def test_repro_runs_dvc_with_this_interpreters_programs_on_the_path(params_file, monkeypatch):
    called = {}

    def run(command, *, cwd, env, check):
        called.update(command=command, path=env["PATH"].split(":")[0])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(pipeline.subprocess, "run", run)
    monkeypatch.setattr("detoxlens.tracking.finish_project_run", lambda store, keys: called.update(keys=keys))
    assert repro(params_file.parent, params_file, evaluate_only=True) == 3
    assert called["command"][1:] == [
        "-m",
        "dvc",
        "repro",
        "--single-item",
        "code",
        "generate",
        "score",
        "attribute",
        "report",
    ]
    assert (Path(called["path"]) / "detoxlens").exists()
    assert len(set(called["keys"])) == 6  # two models, three variants
