"""A stage runs the code of the checkout it stands in, and what DVC files its outputs under is what made them."""

import hashlib

import pytest
from ruamel.yaml import YAML

from detoxlens.common.checkout import other_source, root_of
from detoxlens.common.errors import UserError
from detoxlens.common.fingerprint import SOURCE, fingerprint
from detoxlens.pipeline.code import write_code
from detoxlens.tracking import dvc_md5
from tests.root import ROOT
from tests.tools.project import NOTHING_TO_DO, copy_files, run

SPLITS = "src/detoxlens/data/splits.py"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout of its own, without results; its environment has the package of this one, as by another install."""
    folder = copy_files(tmp_path_factory.mktemp("code") / "project")
    run("git init -q && git add -A && git commit -qm all", cwd=folder)
    return folder


def edit(project, old='"dialogues", key', new='"dialogues-dealt-anew", key'):
    path = project / SPLITS
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_checkouts_own_source_is_found_and_another_refused(tmp_path):
    assert other_source(ROOT) is None or SOURCE != ROOT / "src"
    assert other_source(tmp_path) is None  # a project without source runs what is installed
    (tmp_path / "src/detoxlens").mkdir(parents=True)
    (tmp_path / "src/detoxlens/__init__.py").touch()
    assert other_source(tmp_path) == tmp_path / "src"
    with pytest.raises(UserError) as error:
        write_code(tmp_path)
    assert str(tmp_path / "src") in str(error.value) and str(SOURCE) in str(error.value)


def test_the_root_is_read_from_the_command_line():
    assert [root_of(a).as_posix() for a in (["prepare"], ["--root", "a", "prepare"], ["--root=b"], ["--root"])] == [
        *(".", "a", "b", "."),
    ]


def test_queued_code_is_what_runs_and_an_edit_reaches_only_the_stages_that_import_it(project):
    run("dvc repro prepare", cwd=project)
    plain = dvc_md5(project / "data/prepared")
    run("git add -A && git commit -qm prepared", cwd=project)
    codes = sorted((project / "code").glob("*.txt"))
    before = {path.name: path.read_text(encoding="utf-8") for path in codes}

    edit(project)
    run("dvc repro prepare", cwd=project)
    edited = dvc_md5(project / "data/prepared")
    assert edited != plain
    changed = {path.name for path in codes if path.read_text(encoding="utf-8") != before[path.name]}
    assert changed == {"prepare.txt"}  # no other stage imports it
    code = (project / "code/prepare.txt").read_bytes()

    run("dvc exp run --queue -n queued prepare", cwd=project)
    run("git checkout -q . && dvc checkout --force data/prepared", cwd=project)
    run("dvc exp run --run-all", cwd=project)
    run("dvc exp run --temp -n in-temp prepare", cwd=project)
    for name, md5, text in (("queued", edited, code), ("in-temp", plain, before["prepare.txt"].encode())):
        ref = run(f"git for-each-ref --format='%(refname)' | grep exps/.*/{name}$", cwd=project).strip()
        stage = YAML(typ="safe").load(run(f"git show {ref}:dvc.lock", cwd=project))["stages"]["prepare"]
        of_code = next(dep["md5"] for dep in stage["deps"] if dep["path"] == "code/prepare.txt")
        assert of_code == hashlib.md5(text).hexdigest(), name
        assert stage["outs"][0]["md5"] == md5, name

    edit(project)  # and later, the edited code for good: restored from the run cache or made anew, it is the right one
    run("dvc repro prepare", cwd=project)
    assert dvc_md5(project / "data/prepared") == edited
    run("git checkout -q . && dvc checkout --force data/prepared", cwd=project)


def test_a_stage_that_is_run_alone_is_filed_under_the_code_that_ran(project):
    edit(project)
    run("detoxlens --no-track prepare", cwd=project)  # not by DVC, nor after the stage `code`
    assert NOTHING_TO_DO not in run("dvc status", cwd=project)
    assert (project / "code/prepare.txt").read_text(encoding="utf-8").splitlines() == fingerprint(
        "detoxlens.pipeline.stages.prepare", project / "src"
    )
    run("git checkout -q . && dvc checkout --force data/prepared", cwd=project)


def test_a_comment_runs_nothing_again(project):
    run("dvc repro prepare", cwd=project)
    edit(project, new='"dialogues", key  # a comment\n')
    said = run("dvc repro prepare", cwd=project)
    assert "Running stage 'code'" in said and "Running stage 'prepare'" not in said
    assert NOTHING_TO_DO in run("dvc repro prepare", cwd=project)


def test_a_mistake_in_a_value_costs_no_output(project):
    """DVC deletes a stage's outputs before it runs the stage; the first stage has checked all params by then."""
    run("dvc repro prepare", cwd=project)
    before = dvc_md5(project / "data/prepared")
    asked = "dvc exp run -S ppo.kl.coef=-1 -S data.seed=5 prepare 2>&1 | tr '\\n' ' '; exit 1"
    remedy = r"ppo\.kl\.coef=-1.*No result was touched: correct it.*`git checkout \. && dvc checkout` drops"
    with pytest.raises(AssertionError, match=remedy):
        run(asked, cwd=project)
    assert dvc_md5(project / "data/prepared") == before
