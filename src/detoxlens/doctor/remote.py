"""DVC's default remote against the outputs of dvc.lock: a folder is looked into, any other asked through DVC."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from detoxlens.common.urls import without_password
from detoxlens.doctor.check import Check, some
from detoxlens.doctor.results import Project, missing_objects

PATIENCE_SECONDS = 10.0
ASK = ("status", "--cloud")
Answer = subprocess.CompletedProcess[str] | None
"""What `dvc status --cloud --json` said; None when it took too long."""


def ask(project: Project, *, patience_seconds: float = PATIENCE_SECONDS) -> Future[Answer] | None:
    """Begins to ask a remote that is no folder, so that the other checks run meanwhile; None where there is none."""
    if project.remote_url is None or "://" not in project.remote_url:
        return None
    command = [sys.executable, "-m", "dvc", *ASK, "--json"]

    def answer() -> Answer:
        try:
            return subprocess.run(
                command,
                cwd=project.root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=patience_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None

    pool = ThreadPoolExecutor(max_workers=1)
    asked = pool.submit(answer)
    pool.shutdown(wait=False)
    return asked


def check_remote(project: Project, asked: Future[Answer] | None) -> Check:
    """The default remote has every output that DVC keeps.

    Args:
        project: what DVC says about the repository.
        asked: see `ask`.
    """
    if project.remote_url is None:
        return Check(name="remote", status="ok", detail="none is set; `dvc remote add --default NAME URL` sets one")
    shown = f"{project.remote_name} ({without_password(project.remote_url)})"
    kept = [o for o in project.outputs if o.cached and o.md5 is not None]
    if asked is None:
        folder = Path(project.remote_url)
        if not folder.is_dir():
            return Check(name="remote", status="warning", detail=f"{shown} does not exist yet", remedy="dvc push")
        return _compared(
            shown, [o.path for o in kept if missing_objects(folder, o.md5, listing=project.cache)], len(kept)
        )
    answer = asked.result()
    remedy = f"dvc {' '.join(ASK)}"
    if answer is None:
        detail = f"{shown} did not answer within {PATIENCE_SECONDS:g} s"
        return Check(name="remote", status="warning", detail=detail, remedy=remedy)
    try:
        found = json.loads(answer.stdout) if answer.returncode == 0 else None
    except ValueError:
        found = None
    if found is None:
        lines = [line for line in answer.stderr.splitlines() if line.strip()] or [f"exit code {answer.returncode}"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        detail = f"{shown} cannot be asked: {without_password(said.removeprefix('ERROR: '))}"
        return Check(name="remote", status="warning", detail=detail, remedy=remedy)
    lacking = {path for path, how in found.items() if how != "deleted"}  # that is there, and not in the cache
    md5s = {o.md5 for o in kept if o.path in lacking or any(path.startswith(f"{o.path}/") for path in lacking)}
    return _compared(shown, [o.path for o in kept if o.md5 in md5s], len(kept))  # DVC names equal outputs once


def _compared(shown: str, gone: list[str], num_kept: int) -> Check:
    if not gone:
        return Check(name="remote", status="ok", detail=f"{shown} has all {num_kept} outputs")
    detail = f"{shown} lacks {len(gone)} of {num_kept} outputs: {some(gone)}"
    return Check(name="remote", status="warning", detail=detail, remedy="dvc push")
