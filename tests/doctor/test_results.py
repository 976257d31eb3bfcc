"""Outputs against workspace and cache; what killed stages left."""

import dataclasses
import os
import time

import pytest
from filelock import FileLock

from detoxlens.doctor import results
from detoxlens.doctor.results import Output, Project
from tests.doctor.commands import assert_exists
from tests.root import ROOT


def test_a_whole_project_is_in_order(project):
    assert [c.status for c in (results.check_outputs(project), results.check_cache(project))] == ["ok"] * 2


def test_dvc_itself_says_what_the_outputs_are():
    project = results.read_project(ROOT)
    by_path = {o.path: o for o in project.outputs}
    assert by_path["adapters/tiny-neox/ft"].cached and by_path["adapters/tiny-neox/ft"].md5.endswith(".dir")
    assert not by_path["reports/table1.md"].cached
    assert project.cache.parts[-2:] == ("files", "md5")


def test_a_missing_output_comes_back_from_the_cache_else_from_the_remote_else_it_is_made_again(project):
    (project.root / "adapters/ft").rmdir()
    check = results.check_outputs(project)
    assert (check.status, check.remedy) == ("broken", "dvc checkout") and "adapters/ft" in check.detail
    (project.cache / "cc/33").unlink()
    assert results.check_outputs(project).remedy == "dvc repro"
    assert (
        results.check_outputs(dataclasses.replace(project, remote_name="m", remote_url="/remote")).remedy == "dvc pull"
    )


def test_a_missing_table_is_gits(project):
    (project.root / "reports/table1.md").unlink()
    check = results.check_outputs(project)
    assert check.remedy == "git checkout -- reports"
    assert_exists(check.remedy)


def test_the_remedy_names_every_folder_of_what_is_gone(project):
    """DVC deletes code/*.txt before it runs the stage that finds a typo in params.yaml."""
    missing = [Output(path=f"code/{stage}.txt", md5="00ff", cached=False) for stage in ("rl", "score")]
    gone = dataclasses.replace(project, outputs=[*project.outputs, *missing])
    assert results.check_outputs(gone).remedy == "git checkout -- code"
    (project.root / "reports/table1.md").unlink()
    assert results.check_outputs(gone).remedy == "git checkout -- reports code"


def test_an_output_that_was_never_made_is_told(project):
    never = Project(
        root=project.root,
        outputs=[Output(path="models/x", md5=None, cached=True)],
        cache=project.cache,
        remote_name=None,
        remote_url=None,
    )
    assert (results.check_outputs(never).status, results.check_outputs(never).remedy) == ("warning", "dvc repro")


@pytest.mark.parametrize("lost", ["aa/11.dir", "bb/22"])
def test_one_lost_file_of_a_folder_makes_the_cache_incomplete(project, lost):
    (project.cache / lost).unlink()
    check = results.check_cache(project)
    assert (check.status, check.remedy) == ("broken", "dvc commit") and "1 of 1" in check.detail
    assert_exists(check.remedy)


def test_unfinished_work_is_told_unless_a_process_is_at_it(tmp_path):
    folder = tmp_path / "scratch/rl@tiny-neox-rl/abc"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"0" * 2**20)
    check = results.check_scratch(tmp_path)
    assert check.status == "warning" and "1 MiB of unfinished work: rl@tiny-neox-rl" in check.detail
    assert check.remedy == f"rm -rf {tmp_path}/scratch"
    with FileLock(folder.with_name("abc.lock")):
        check = results.check_scratch(tmp_path)
    assert check.status == "ok" and "1 stages are at work" in check.detail


def test_a_reports_folder_counts_when_it_is_an_hour_old(tmp_path):
    (tmp_path / "report-x1").mkdir()
    assert results.check_scratch(tmp_path).status == "ok"
    os.utime(tmp_path / "report-x1", (time.time() - 4000,) * 2)
    assert results.check_scratch(tmp_path).status == "warning"
