"""Typer as this program uses it: a flag's help shows no type, since a flag takes no value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class _PlainFlags:
    """Takes the `<bool>` from the help of flags, `--help` included."""

    def get_params(self, ctx: Any) -> list[Any]:
        found = super().get_params(ctx)
        for param in found:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return found


class Command(_PlainFlags, TyperCommand):
    """One sub-command."""


class Group(_PlainFlags, TyperGroup):
    """A command with sub-commands."""


class App(typer.Typer):
    """A program, or a sub-program, of such commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        return super().command(name, cls=Command, **settings)
