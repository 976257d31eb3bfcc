"""A clone of the last commit, to run DVC and sweeps in as a user would."""

import os
import subprocess
import sys
from pathlib import Path

from tests.root import ROOT

DVC = [sys.executable, "-m", "dvc"]


def clone(folder):
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def environment(root):
    """In which `detoxlens` is the clone's, with a tracking store of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | {"PATH": path, "PYTHONPATH": str(root / "src"), "OMP_WAIT_POLICY": "PASSIVE"}


def start(root, *command):
    return subprocess.Popen(command, cwd=root, env=environment(root))


def run(root, *command):
    subprocess.run(command, cwd=root, env=environment(root), check=True)
