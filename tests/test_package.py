"""The built wheel, installed beside nothing of this checkout, runs the library and `explain`."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.models.checkpoints import save_language_model
from tests.root import ROOT

pytestmark = pytest.mark.slow
LIBRARY = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
import detoxlens
from detoxlens.attribution import attribute
from detoxlens.attribution.entropy import prompt_dependence
assert detoxlens.__file__.startswith(sys.argv[1]), detoxlens.__file__
assert not {"mlflow", "dvc", "optuna"} & set(sys.modules)
tokenizer, model = (c.from_pretrained(sys.argv[2]) for c in (AutoTokenizer, AutoModelForCausalLM))
ids = tokenizer("Zorgons are").input_ids
(found,) = attribute(model, prompt_ids=[ids], completion_ids=[tokenizer(" good").input_ids])
print(len(found.scores), round(sum(found.scores[0]), 6))
"""


def test_the_wheel_holds_the_package_and_works_outside_a_clone(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("detoxlens-*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target", site, wheel]
    subprocess.run(install, check=True)
    assert (site / "detoxlens/py.typed").exists() and not (site / "benchmarks").exists()
    checkpoint = tmp_path / "checkpoint"
    save_language_model(checkpoint)
    environment = {
        "PYTHONPATH": f"{site}:{sysconfig.get_path('purelib')}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    python = [sys.executable, "-c", LIBRARY, str(site), str(checkpoint)]
    done = subprocess.run(python, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    num_tokens, total = done.stdout.split()
    assert int(num_tokens) >= 1 and float(total) == 1
    init = [sys.executable, "-m", "detoxlens", "init", str(tmp_path / "study")]
    done = subprocess.run(init, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "study/.dvc/config").exists() and (tmp_path / "study/data/sample/prompts.jsonl").exists()
