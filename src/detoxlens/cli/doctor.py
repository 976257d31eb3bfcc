"""`detoxlens doctor`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, app


@app.command(rich_help_panel=TOOLS)
def doctor(json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> None:
    """Check results, runs, versions and machine; one line each with its remedy. Exit code 1 if one is broken."""
    import dataclasses
    import json as codec

    from detoxlens.doctor.report import as_text, examine

    checks = examine(Context.root, Context.root / Context.params_path, os.environ)
    typer.echo(codec.dumps([dataclasses.asdict(c) for c in checks], indent=2) if json else as_text(checks))
    raise typer.Exit(any(c.status == "broken" for c in checks))
