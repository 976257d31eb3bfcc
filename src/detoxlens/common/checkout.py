"""Check and restart by which a stage runs the code of the checkout it stands in, or refuses.

An editable install, a queued DVC experiment, `mlflow run` of a git URL and a git worktree each have a folder of their
own; without this a stage in one of them would run the code of another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.common.fingerprint import PACKAGE, SOURCE

RESTARTED = "DETOXLENS_RESTARTED_IN"
"""Set for a process that was restarted with its checkout's code, so that it never restarts twice."""


def other_source(root: Path) -> Path | None:
    """The checkout's own source folder, if the running package lies elsewhere; None where all is well.

    Args:
        root: the project's folder; one without `src/detoxlens` runs what is installed.
    """
    own = (root / "src").resolve()
    return own if (own / PACKAGE / "__init__.py").is_file() and own != SOURCE.resolve() else None


def check_own_code(root: Path) -> None:
    """Raises a UserError that names both folders if the running package is not the checkout's."""
    if own := other_source(root):
        raise UserError(
            f"The project in {root} has its own source in {own}, but the code that is running lies in {SOURCE}: its "
            "results would be filed under code that did not make them. Start it with `detoxlens` or `python -m "
            f"detoxlens` from {root}, or set PYTHONPATH={own}."
        )


def restart_in_checkout(arguments: Sequence[str], environment: dict[str, str]) -> None:
    """Replaces this process by one that runs the code of the checkout it stands in; returns if it already does.

    Args:
        arguments: of the command line, without the program.
        environment: of this process.
    """
    root = root_of(arguments)
    own = other_source(root)
    if own is None or environment.get(RESTARTED) == str(own):
        return
    path = os.pathsep.join([str(own), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", PACKAGE, *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment | {"PYTHONPATH": path, RESTARTED: str(own)})


def root_of(arguments: Sequence[str]) -> Path:
    """The project's folder that a command line names by `--root`, or the present one."""
    for number, argument in enumerate(arguments):
        if argument == "--root" and number + 1 < len(arguments):
            return Path(arguments[number + 1])
        if argument.startswith("--root="):
            return Path(argument.partition("=")[2])
    return Path()
