"""The `detoxlens` command: one sub-command per stage, plus the tools.

app.py       the program and its global options      stages.py    prepare ... report
project.py   sample, repro, preset, ui, log, ...   doctor.py    doctor
planning.py  plan                                    explain.py   explain
study.py     study                                   audit.py     audit
new.py       init, schema                            push.py      push-adapter
controls.py  noise-floor, overlap
sweep.py     sweep, sweep apply                      scores.py    import-completions, replay, calibrate, ...
"""

from __future__ import annotations

import os
import sys

from detoxlens.cli.app import Context, app
from detoxlens.common.checkout import restart_in_checkout

# Importing registers the commands; the help lists them in this order.
# isort: off
from detoxlens.cli import stages, project, doctor, planning, explain, sweep, scores, study, audit, new, push, controls

# isort: on

__all__ = [
    "app",
    "audit",
    "controls",
    "doctor",
    "explain",
    "main",
    "new",
    "planning",
    "project",
    "push",
    "scores",
    "stages",
    "study",
    "sweep",
]

PIPELINE_EXTRA = ("dvc", "mlflow", "optuna", "plotly")
"""Packages of the extra `pipeline`, without which the library, `explain` and single stages work."""
INTERRUPTED = 130
"""Exit code of Ctrl-C; Typer turns the KeyboardInterrupt into it."""


def main() -> None:
    """Entry point: one paragraph and a non-zero exit instead of a traceback."""
    # Torch reads these when it loads. A waiting thread that spins costs 2-8 times where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours show an ETA
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # without a network it tells of every retry, 20 lines of them
    sys.argv[1:] = with_debug_first(sys.argv[1:])
    restart_in_checkout(sys.argv[1:], dict(os.environ))
    sys.dont_write_bytecode = False  # without bytecode every stage would compile torch and transformers anew
    try:
        app()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _fail("Interrupted. What was finished is kept; the same command resumes from there.", INTERRUPTED)
        raise
    except Exception as error:  # the last line of defence: every error becomes one paragraph
        if Context.debug:
            raise
        from detoxlens.common.errors import UserError

        if isinstance(error, UserError):
            _fail(str(error), 2)
        if isinstance(error, ModuleNotFoundError) and error.name in PIPELINE_EXTRA:
            _fail(f"This needs the package {error.name}: `pip install 'detoxlens[pipeline]'` brings it.", 2)
        _fail(_unexpected(error), 1)


def with_debug_first(arguments: list[str]) -> list[str]:
    """The command line with `--debug`, wherever it stands, before the command, where Typer looks for it."""
    if "--debug" not in arguments:
        return arguments
    return ["--debug", *(a for a in arguments if a != "--debug")]


def _unexpected(error: Exception) -> str:
    """What is said of an error nobody foresaw; its traceback goes into the state folder."""
    import traceback

    from detoxlens.common.repository import STATE, main_repository

    log = main_repository(Context.root) / STATE / "last-error.txt"
    if not (Context.root / Context.params_path).is_file():  # no project: nothing is left behind in it
        return f"Unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return f"{type(error).__name__}: {error} (run again with --debug for the traceback)"
    return (
        f"Unexpected {type(error).__name__}: {error} The traceback is in {log}; the same command with --debug shows it."
    )


def _fail(message: str, code: int) -> None:
    print(f"detoxlens: {message}", file=sys.stderr)
    sys.exit(code)
