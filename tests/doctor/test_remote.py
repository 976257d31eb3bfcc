"""The default remote: a folder is looked into; another is asked, in a process that may fail or hang."""

import dataclasses
import subprocess
import time
from concurrent.futures import Future

import pytest

from detoxlens.doctor import remote
from tests.doctor.commands import assert_exists
from tests.doctor.conftest import store


def at(project, url):
    return dataclasses.replace(project, remote_name="m", remote_url=str(url))


def said(stdout="", stderr="", returncode=0):
    """An answer of `dvc status --cloud --json`."""
    asked = Future()
    asked.set_result(subprocess.CompletedProcess([], returncode, stdout=stdout, stderr=stderr))
    return asked


S3 = "https://ada:secret@store.example/x"


def test_without_a_remote_nothing_is_asked(project):
    assert remote.ask(project) is None and remote.check_remote(project, None).status == "ok"


def test_a_folder_is_compared(project, tmp_path):
    there = at(project, tmp_path / "remote")
    assert remote.ask(there) is None
    assert remote.check_remote(there, None).remedy == "dvc push"
    store(tmp_path / "remote", "aa11.dir")
    store(tmp_path / "remote", "bb22")
    check = remote.check_remote(there, None)
    assert check.status == "warning" and "lacks 1 of 1 outputs: adapters/ft" in check.detail
    store(tmp_path / "remote", "cc33")
    assert remote.check_remote(there, None).status == "ok"


@pytest.mark.parametrize(
    ("stdout", "status", "detail"),
    [
        ("{}", "ok", "m (https://store.example/x) has all 1 outputs"),
        ('{"adapters/ft": "deleted"}', "ok", "has all 1"),  # there, and not in the cache
        ('{"adapters/ft": "new"}', "warning", "lacks 1 of 1 outputs: adapters/ft"),
        ('{"adapters/ft/README.md": "missing", "elsewhere": "new"}', "warning", "lacks 1 of 1 outputs: adapters/ft"),
    ],
)
def test_another_says_what_it_lacks(project, stdout, status, detail):
    check = remote.check_remote(at(project, S3), said(stdout))
    assert check.status == status and detail in check.detail
    assert check.remedy == ("" if status == "ok" else "dvc push")


def test_equal_outputs_that_dvc_names_once_are_all_lacking(project):
    twin = dataclasses.replace(project.outputs[0], path="adapters/rl")
    both = dataclasses.replace(at(project, S3), outputs=[*project.outputs, twin])
    assert (
        "lacks 2 of 2 outputs: adapters/ft, adapters/rl"
        in remote.check_remote(both, said('{"adapters/ft": "new"}')).detail
    )


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (said(stderr="noise\nERROR: no keys for s3://a:b@c/d\nhint", returncode=255), "no keys for s3://c/d"),
        (said(stdout="half a", returncode=0), "cannot be asked: exit code 0"),
        (said(stderr="Killed\n", returncode=-9), "cannot be asked: Killed"),
    ],
)
def test_one_that_cannot_be_asked_is_told_with_its_own_words_and_no_password(project, answer, detail):
    check = remote.check_remote(at(project, S3), answer)
    assert (check.status, check.remedy) == ("warning", "dvc status --cloud") and detail in check.detail
    assert "secret" not in check.detail
    assert_exists(check.remedy)


def test_one_that_hangs_is_given_up(project, monkeypatch):
    real = subprocess.run

    monkeypatch.setattr(remote.subprocess, "run", lambda command, **options: real(["sleep", "60"], **options))
    started = time.monotonic()
    check = remote.check_remote(at(project, S3), remote.ask(at(project, S3), patience_seconds=0.1))
    assert check.status == "warning" and "did not answer within" in check.detail
    assert time.monotonic() - started < 10
