"""Temporary copies and worktrees lead back to the main checkout, and so does what must not be lost with them."""

import shutil
import subprocess

from detoxlens.audit.sheet import folder_of as sheets_of
from detoxlens.common.artifacts import Layout
from detoxlens.common.repository import main_repository
from detoxlens.common.scoring import ScoredText
from detoxlens.scorers import score_cache
from detoxlens.study.workspace import workspace_of
from detoxlens.tracking import resolve_store


def linked(main, tree):
    """A git repository, and a worktree of it."""
    git = ["git", "-C", str(main), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    main.mkdir()
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"], ["worktree", "add", "-q", str(tree)]):
        subprocess.run([*git, *command], check=True)


def test_the_store_lies_in_the_main_repository_even_in_dvcs_temporary_copies_and_git_worktrees(tmp_path):
    main = tmp_path / "main"
    linked(main, tmp_path / "tree")
    copy = main / ".dvc/tmp/exps/standalone/tmpabc123"
    copy_of_tree = tmp_path / "tree/.dvc/tmp/exps/tmpdef"
    for place in (copy, copy_of_tree):
        place.mkdir(parents=True)
    assert {main_repository(p) for p in (main, copy, tmp_path / "tree", copy_of_tree)} == {main.resolve()}
    assert resolve_store(copy, {}).uri == f"sqlite:///{main.resolve()}/.detoxlens/mlflow.db"


def test_a_submodule_or_a_plain_folder_is_its_own_main_repository(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.git").write_text("gitdir: ../.git/modules/sub\n")
    assert main_repository(tmp_path / "sub") == (tmp_path / "sub").resolve()
    assert main_repository(tmp_path) == tmp_path.resolve()


def test_a_project_below_its_repositorys_top_lies_at_the_same_place_in_the_main_checkout(tmp_path):
    main = tmp_path / "main"
    linked(main, tmp_path / "tree")
    inside = tmp_path / "tree/studies/one"
    inside.mkdir(parents=True)
    assert main_repository(inside) == main.resolve() / "studies/one"
    temporary = main / "studies/one/.dvc/tmp/exps/tmpabc/studies/one"
    temporary.mkdir(parents=True)
    assert main_repository(temporary) == main.resolve() / "studies/one"


def test_a_sweeps_trial_folder_keeps_its_own_state(tmp_path):
    main = tmp_path / "main"
    linked(main, tmp_path / "tree")
    trial = Layout(tmp_path / "tree").kept("sweeps/s/trial-00001")
    assert trial.is_relative_to(main.resolve()) and Layout(trial).state == trial / ".detoxlens"


def test_answers_of_a_paid_service_are_found_and_kept_from_everywhere(tmp_path):
    main = tmp_path / "main"
    linked(main, tmp_path / "tree")
    copy = main / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    places = [main, copy, tmp_path / "tree"]
    for number, place in enumerate(places):
        text = f"Ferries are slow, {number}."
        score_cache(place).write("perspective", "v1", text, ScoredText(0.2, "ok", False, ""))
        assert all(score_cache(other).read("perspective", "v1", [text]) for other in places)
    assert not (copy / "kept").exists() and not (tmp_path / "tree/kept").exists()


def test_what_no_command_makes_again_survives_the_deletion_of_the_state_folder(tmp_path):
    layout = Layout(tmp_path)
    score_cache(tmp_path).write("perspective", "v1", "Ferries are slow.", ScoredText(0.2, "ok", False, ""))
    kept = [layout.score_cache, layout.sweeps_database, layout.kept("sweeps", "s"), workspace_of(tmp_path, "smollm2")]
    kept.append(sheets_of(tmp_path, "tiny-neox"))
    assert not any(place.is_relative_to(layout.state) for place in kept)
    shutil.rmtree(layout.state, ignore_errors=True)
    assert score_cache(tmp_path).read("perspective", "v1", ["Ferries are slow."])


def test_what_former_versions_kept_in_the_state_folder_moves_out_of_it(tmp_path):
    layout = Layout(tmp_path)
    former = layout.state / "sweeps/s/trial-00000"
    former.mkdir(parents=True)
    (former / "history.jsonl").write_text("{}\n")
    assert (layout.kept("sweeps", "s") / "trial-00000/history.jsonl").read_text() == "{}\n"
    assert not (layout.state / "sweeps/s").exists()
    former.mkdir(parents=True)  # and what is kept already is not replaced
    assert list(layout.kept("sweeps", "s").iterdir()) == [layout.kept("sweeps/s/trial-00000")]
