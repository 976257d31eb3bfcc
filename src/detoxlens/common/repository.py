"""The two folders that outlive a checkout: DVC's temporary copies and git's linked worktrees lead back to them.

.detoxlens/   MLflow's store, unfinished work, locks: may be deleted when nothing runs
kept/         what no command makes again: sweeps, checkouts of studies, people's labels, answers of paid services
"""

from __future__ import annotations

from pathlib import Path

STATE, KEPT = ".detoxlens", "kept"
"""Folders below the main repository, neither in git nor in DVC."""


def main_repository(root: Path) -> Path:
    """The main checkout's folder of the project in `root`.

    A project below its repository's top lies at the same place in the main checkout.
    """
    root = root.resolve()
    for parent in root.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return main_repository(parent.parents[2])
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
    return _main_checkout(top) / root.relative_to(top)


def _main_checkout(top: Path) -> Path:
    """The checkout that a worktree was linked from, by its file `.git`: "gitdir: <main>/.git/worktrees/<name>"."""
    link = top / ".git"
    if link.is_file():
        git_dir = top / link.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        common = git_dir / "commondir"
        if common.exists():
            shared = (git_dir / common.read_text(encoding="utf-8").strip()).resolve()
            if shared.name == ".git":
                return shared.parent
    return top
