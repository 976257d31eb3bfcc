"""A benchmark as a command line."""

import pytest

from benchmarks.script import run
from detoxlens.common.errors import UserError


def test_an_error_is_one_paragraph_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark"])

    def command() -> None:
        raise UserError("No variant has completions; run `dvc repro`.")

    with pytest.raises(SystemExit) as stop:
        run(command)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "benchmarks: No variant has completions; run `dvc repro`.\n"


def test_arguments_are_options(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark", "--repetitions", "3"])
    asked = []

    def command(repetitions: int = 1) -> None:
        asked.append(repetitions)

    with pytest.raises(SystemExit) as stop:
        run(command)
    assert asked == [3] and not stop.value.code
