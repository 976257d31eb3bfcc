"""Shares of the same work: which batches, which device, and what `--share` may say."""

import pytest
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.errors import UserError
from detoxlens.jobs.shares import Share, parse_share


def test_every_piece_of_work_is_one_shares():
    taken = [[n for n in range(8) if Share(k, 3).takes(n)] for k in range(3)]
    assert taken == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_shares_spread_over_the_machines_accelerators_unless_one_is_named():
    assert [Share(k, 4).device("cuda", 2) for k in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert Share(3, 4).device("cuda:5", 8) == "cuda:5"
    assert Share(3, 4).device("cpu", 8) == "cpu"
    assert Share(3, 4).device("cuda", 0) == "cuda"  # torch says itself that there is none


@pytest.mark.parametrize(
    "text, environment, expected",
    [
        ("0/1", {}, Share(0, 1)),
        ("3/16", {}, Share(3, 16)),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2"}, Share(1, 2)),
        ("auto", {"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}, Share(5, 8)),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Share(1, 2)),
    ],
)
def test_a_share_is_given_or_told_by_the_launcher(text, environment, expected):
    assert parse_share(text, environment) == expected
    assert str(expected) == f"{expected.index}/{expected.count}"


@pytest.mark.parametrize("text", ["2/2", "0/0", "1", "-1/2", "a/b", "1/2/3", ""])
def test_a_share_that_is_none_is_told(text):
    with pytest.raises(UserError, match=r"--share .*: give NUMBER/COUNT"):
        parse_share(text, {})


def test_auto_without_a_launcher_is_told():
    with pytest.raises(UserError, match="no launcher has numbered this process"):
        parse_share("auto", {"RANK": "0"})


def test_the_command_hands_the_share_on_and_runs_the_stage_untracked(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("detoxlens.pipeline.run_stage.run_share", lambda *args, **named: calls.append((args, named)))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    arguments = ["--root", str(tmp_path), "attribute", "--model", "m", "--variant", "ft", "--share"]
    assert CliRunner().invoke(app, [*arguments, "auto"]).exit_code == 0
    (args, named), *_ = calls
    assert args == (tmp_path, tmp_path / "params.yaml", "attribute")
    assert named == {"model": "m", "variant": "ft", "share": Share(1, 4)}
    assert isinstance(CliRunner().invoke(app, [*arguments, "4/4"]).exception, UserError)
