"""A benchmark as a command line, and the file of its figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from detoxlens.common.artifacts import write_json
from detoxlens.common.checkout import check_own_code
from detoxlens.common.console import set_up_console
from detoxlens.common.errors import UserError

RESULTS = Path("benchmarks") / "results"


def run(command: Callable[..., None]) -> None:
    """Runs `command`, whose arguments become options; a UserError is one paragraph and exit code 2."""
    set_up_console()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        check_own_code(Path())
        app()
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


def write_figures(root: Path, name: str, figures: dict[str, object]) -> Path:
    """Writes benchmarks/results/<name>.json; its path, relative to the repository's root."""
    path = RESULTS / f"{name}.json"
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    write_json(root / path, figures)
    return path
