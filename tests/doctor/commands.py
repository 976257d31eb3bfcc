"""Whether a command that the doctor names exists."""

import shlex


def assert_exists(command: str) -> None:
    """Each part of a `&&` chain is a command of detoxlens or DVC that they take, or a program of any shell."""
    for part in command.split(" && "):
        program, *arguments = shlex.split(part)
        if program == "detoxlens":
            from typer.main import get_command

            from detoxlens.cli import app

            assert arguments[0] in get_command(app).commands, command
        elif program == "dvc":
            from dvc.cli.parser import get_main_parser

            get_main_parser().parse_args(arguments)  # exits on a mistake
        else:
            assert program in ("git", "make", "mv", "python", "rm", "unset"), command
