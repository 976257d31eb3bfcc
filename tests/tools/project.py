"""A small copy of this repository in which DVC, MLflow and git do what users do with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.pipeline.test_pipeline import raw_params, shrink
from tests.root import ROOT

NOTHING_TO_DO = "Data and pipelines are up to date."
IDENTITY = {f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def run(command: str, *, cwd: Path, timeout: float = 570, **environment: str) -> str:
    """Output and errors of a command line that must succeed, with this interpreter's programs and these sources."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "GIT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command,
        shell=True,
        cwd=cwd,
        env=inherited | IDENTITY | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def copy_files(folder: Path) -> Path:
    """The files of this repository as they are here, without its results; no git repository yet."""
    files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    for name in files:
        if name != "dvc.lock" and not name.startswith("reports/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config.local").unlink(missing_ok=True)
    return folder


def make_origin(folder: Path) -> Path:
    """The files as they are here, everything small, one model and two variants; committed, and its pipeline run once.

    DVC's cache lies beside it, so that a clone on this machine finds every result there, as on a shared disk.
    """
    origin = copy_files(folder / "origin")
    raw = shrink(raw_params(), ["tiny-neox"])
    raw["run"] |= {"variants": ["it", "ft"], "rl_variants": []}
    raw["sweep"] |= {"constraints": {}}
    with (origin / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(raw, file)
    run(f"git init -q && dvc cache dir {folder / 'cache'}", cwd=origin)
    run("git add -A && git commit -qm small", cwd=origin)
    run("dvc repro", cwd=origin)
    run("git add -A && git commit -qm results", cwd=origin)
    return origin


def clone(origin: Path, folder: Path) -> Path:
    """A clone with the results checked out from the cache beside the origin."""
    run(f"git clone -q {origin} {folder} && cd {folder} && dvc checkout -q", cwd=origin)
    return folder


def stores(folder: Path) -> list[str]:
    """What looks like a tracking store below a folder, relative to it."""
    found = [p for name in ("mlflow.db", "mlruns", "mlartifacts") for p in folder.rglob(name)]
    return sorted(p.relative_to(folder).as_posix() for p in found)
