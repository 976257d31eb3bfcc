"""Storages that cannot be used, and study names that belong to something else: one paragraph each."""

import pytest

from detoxlens.common.errors import UserError
from detoxlens.sweep.storage import IDENTITY, absolute, default_url, differences, load_study, open_storage, open_study

DEFINITION = {"objectives": {"a": "minimize"}, "space": {"x": {"low": 1}}}


def opened(state, url=None, definition=DEFINITION, name="s"):
    url = url or default_url(state)
    storage = open_storage(url, state)
    return open_study(storage, url, name, state, definition=definition, sampler=None, pruner=None)


@pytest.mark.parametrize("url", [None, "journal:{state}/sweep.journal"])
def test_a_study_is_found_again(tmp_path, url):
    url = url and url.format(state=tmp_path)
    opened(tmp_path, url).set_user_attr("mine", 1)
    again = opened(tmp_path, url)
    assert again.user_attrs["mine"] == 1
    url = url or default_url(tmp_path)
    study, definition = load_study(open_storage(url, tmp_path), url, "s")
    assert definition == DEFINITION
    assert study.metric_names == ["a"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objectives": {"b": "minimize"}}, r'objectives\.a: "minimize", now absent; objectives\.b: absent'),
        ({"objectives": {"a": "maximize"}}, r'objectives\.a: "minimize", now "maximize"'),
        ({"objectives": {"a": "minimize", "b": "minimize"}}, r"objectives\.b: absent"),
        ({"space": {"x": {"low": 2}}}, r"space\.x\.low: 1, now 2"),
    ],
)
def test_a_name_reused_for_another_sweep_is_refused(tmp_path, changes, told):
    opened(tmp_path)
    with pytest.raises(UserError, match=told + ".*Choose another --study name"):
        opened(tmp_path, definition=DEFINITION | changes)
    opened(tmp_path)  # nothing lost


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////nowhere/at/all/x.db", "unable to open database file"),
        ("postgresql://ada:secret@127.0.0.1:1/sweeps", "--storage postgresql://127.0.0.1:1/sweeps cannot be used"),
        ("studies.db", "it is no URL"),
        ("journal:/nowhere/at/all/x.journal", "No such file"),
        ("nosuchdatabase://x", "cannot be used"),
        (
            "postgresql://ada:secret/more=@127.0.0.1:1/sweeps",
            "--storage postgresql://127.0.0.1:1/sweeps cannot be used",
        ),
        ("postgresql://USER:secret@HOST:PORT/NAME", "cannot be used"),
    ],
)
def test_an_unreachable_storage_is_one_paragraph_without_the_password(tmp_path, url, told):
    with pytest.raises(UserError, match=told) as caught:
        opened(tmp_path, url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_file_is_told_and_kept(tmp_path):
    database = tmp_path / "kept/optuna.db"
    database.parent.mkdir()
    database.write_bytes(b"no database, but long enough to be looked at" * 50)
    with pytest.raises(UserError, match=r"optuna\.db cannot be used.*not a database"):
        opened(tmp_path)
    assert database.read_bytes().startswith(b"no database")


def test_a_damaged_journal_is_told_and_kept(tmp_path):
    (tmp_path / "studies.journal").write_text("no journal\n")
    with pytest.raises(UserError, match=r"journal:.*studies\.journal cannot be used"):
        opened(tmp_path, f"journal:{tmp_path}/studies.journal")
    assert (tmp_path / "studies.journal").read_text().startswith("no journal\n")


def test_workers_in_other_folders_find_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///s.db") == f"sqlite:///{tmp_path}/s.db"
    assert absolute("journal:s.journal") == f"journal:{tmp_path}/s.journal"
    for url in ("sqlite:////there/s.db", "journal:/there/s.journal", "postgresql://host/name"):
        assert absolute(url) == url


def test_studies_of_one_name_in_two_storages_are_told_apart(tmp_path):
    one, other = (opened(tmp_path, f"sqlite:///{tmp_path}/{n}.db").user_attrs[IDENTITY] for n in ("a", "b"))
    assert one != other


def test_an_unknown_or_foreign_study_is_named(tmp_path):
    import optuna

    opened(tmp_path, name="ppo-tiny-neox")
    url = default_url(tmp_path)
    storage = open_storage(url, tmp_path)
    with pytest.raises(UserError, match=r"no sweep called 'ppo-tiny-nex'. Did you mean 'ppo-tiny-neox'"):
        load_study(storage, url, "ppo-tiny-nex")
    foreign = optuna.create_study(study_name="foreign", storage=storage)
    foreign.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(UserError, match="was not made by `detoxlens sweep`"):
        opened(tmp_path, name="foreign")


def test_differences_name_every_leaf():
    assert differences({"a": {"b": 1, "c": [1]}, "d": 0}, {"a": {"b": 1, "c": [2]}, "e": 0}) == [
        "a.c: [1], now [2]",
        "d: 0, now absent",
        "e: absent, now 0",
    ]
