"""A study's own checkout, kept/studies/<name>: its params, DVC state and outputs; the demo's stay untouched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from detoxlens.common.artifacts import Layout, link
from detoxlens.common.errors import UserError

LINKED = ("data/raw",)
"""Folders of the checkout whose files the study's reads too, so that they are kept once."""


def workspace_of(root: Path, name: str) -> Path:
    """Where the study's checkout lies."""
    return Layout(root).kept("studies", name)


def open_workspace(root: Path, name: str) -> Path:
    """The study's checkout at this checkout's commit; DVC's knowledge of earlier runs is kept.

    Raises:
        UserError: git cannot, or files of the checkout differ from the commit.
    """
    if changed := _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src", "presets", "dvc.yaml"):
        raise UserError(
            f"The checkout has changes that are not committed ({changed.splitlines()[0].strip()}, ...): a study runs a "
            "commit, so that its results name the code that made them. Commit or stash them."
        )
    commit, folder = _git(root, "rev-parse", "HEAD"), workspace_of(root, name)
    if not (folder / ".git").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _git(root, "clone", "--quiet", "--no-checkout", str(root), str(folder))
        _git(folder, "checkout", "--quiet", "--detach", commit)
        (folder / "dvc.lock").unlink(missing_ok=True)  # of the demo
    lock = folder / "dvc.lock"
    known = lock.read_bytes() if lock.exists() else None
    _git(folder, "fetch", "--quiet", "origin", commit)
    _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    lock.unlink() if known is None else lock.write_bytes(known)
    for place in LINKED:
        for file in (root / place).rglob("*"):
            target = folder / place / file.relative_to(root / place)
            if file.is_file() and not target.exists():
                link(file, target)
    return folder


def _git(folder: Path, *arguments: str) -> str:
    """What git prints, stripped; the environment's own repository, if any, is not used."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UserError(f"git {arguments[0]} failed in {folder}: {reason}")
    return done.stdout.strip()
