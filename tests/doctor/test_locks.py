"""What a killed DVC or git leaves behind is named with the remedy, after looking for processes that still work here."""

import shutil
import subprocess
import sys

import pytest

from detoxlens.doctor.locks import check_locks, processes_of
from tests.doctor.commands import assert_exists


@pytest.fixture
def root(tmp_path):
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


@pytest.mark.parametrize("torn", ["", '{"write": {"/a": {"pid": 1, "cm', "[]"])
def test_a_torn_rwlock_is_named_and_removing_it_lets_dvc_run(root, torn):
    from dvc.fs import localfs
    from dvc.rwlock import RWLockFileCorruptedError, RWLockFileFormatError, _edit_rwlock

    lock = root / ".dvc/tmp/rwlock"
    lock.write_text(torn)
    with (
        pytest.raises((RWLockFileCorruptedError, RWLockFileFormatError)),
        _edit_rwlock(str(lock.parent), localfs, False),
    ):
        pass
    check = check_locks(root)
    assert check.status == "broken" and "no process of dvc is at work" in check.detail
    assert_exists(check.remedy)
    subprocess.run(check.remedy, shell=True, check=True)
    with _edit_rwlock(str(lock.parent), localfs, False):
        pass
    assert check_locks(root).status == "ok"


def test_no_lock_is_removed_under_a_process_that_works_here(root):
    (root / ".dvc/tmp/rwlock").write_text("{")
    program = root / "dvc"
    program.write_text("import time; print('in', flush=True); time.sleep(60)")
    worker = subprocess.Popen([sys.executable, str(program), "repro"], cwd=root, stdout=subprocess.PIPE)
    try:
        worker.stdout.readline()
        check = check_locks(root)
        assert check.status == "warning" and f"process {worker.pid}" in check.detail and "rm" not in check.remedy
        assert processes_of("dvc", root / "elsewhere") == []
    finally:
        worker.kill()
        worker.communicate()
    assert check_locks(root).status == "broken"


def test_gits_left_over_lock_is_named_also_in_a_worktree(root):
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", str(root / "tree")], check=True)
    for place in (root, root / "tree"):
        assert check_locks(place).status == "ok"
    (root / ".git/worktrees/tree/index.lock").write_text("")
    assert check_locks(root).status == "ok"
    check = check_locks(root / "tree")
    assert check.status == "broken" and "git refuses to write" in check.detail
    shutil.rmtree(root / "tree")
