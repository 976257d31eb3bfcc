"""dvc.yaml lists every project file that a stage's numbers depend on, and nothing that is not there."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.import_graph import ROOT, stage_files

PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
MODULE_OF = {"rl_after_ft": "rl"}


def listed(stage):
    return [d for d in PIPELINE[stage]["deps"] if d.startswith("src/")]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_every_module_it_imports(stage):
    deps = listed(stage)
    missing = [
        file
        for file in stage_files(MODULE_OF.get(stage, stage))
        if file not in deps and Path(file).parent.as_posix() not in deps
    ]
    assert missing == [], f"add to dvc.yaml, stages.{stage}.deps"


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_no_module_it_does_not_import(stage):
    needed = stage_files(MODULE_OF.get(stage, stage))
    stale = [d for d in listed(stage) if not any(f == d or Path(f).parent.as_posix() == d for f in needed)]
    assert stale == [], f"remove from dvc.yaml, stages.{stage}.deps"


def test_the_import_graph_sees_imports_inside_functions_and_skips_type_checking():
    files = stage_files("finetune")
    assert "src/detoxlens/sft/train.py" in files
    assert "src/detoxlens/rl/ppo.py" not in files  # so that PPO settings do not rerun fine-tuning
    assert "src/detoxlens/run_stage.py" not in files
