"""Temporary copies and worktrees lead back to the main checkout, and so does what must not be lost with them."""

import subprocess

from detoxlens.common.artifacts import Layout
from detoxlens.common.repository import main_repository
from detoxlens.common.scoring import ScoredText
from detoxlens.scorers import score_cache
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
    trial = Layout(tmp_path / "tree").state / "sweeps/s/trial-00001"
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
    assert not (copy / ".detoxlens").exists() and not (tmp_path / "tree/.detoxlens").exists()
