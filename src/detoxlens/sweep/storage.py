"""Storages of studies: an SQLite file of the project, any database Optuna can open, or a journal file."""

from __future__ import annotations

import contextlib
import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.common.urls import without_password, without_password_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

DEFINITION, IDENTITY = "detoxlens.definition", "detoxlens.id"
"""User attributes of a study; the second tells it from others of its name in other storages."""
JOURNAL = "journal:"


def default_url(root: Path) -> str:
    """SQLite in the project, outside what DVC tracks or locks; its folder is made."""
    database = Layout(root).sweeps_database
    database.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{database}"


def absolute(url: str) -> str:
    """The URL with the path of a file made absolute: workers need not start in the same folder."""
    for scheme in ("sqlite:///", JOURNAL):
        path = url.removeprefix(scheme)
        if path != url and path not in ("", ":memory:") and not path.startswith("file:"):
            return f"{scheme}{Path(path).absolute()}"
    return url


@contextlib.contextmanager
def explain_storage_errors(url: str, *, opening: bool = True) -> Iterator[None]:
    """Turns a storage that cannot be used into one paragraph, without the password in its URL.

    Args:
        url: the storage's.
        opening: system and import errors are the storage's too; else only what Optuna and SQLAlchemy say of it.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError, ImportError, ValueError, optuna.exceptions.StorageInternalError) as e:
        if not opening and isinstance(e, OSError | ImportError | ValueError):
            raise
        cause = next(iter(str(e.__cause__ or e).strip().splitlines()), type(e).__name__)
        raise UserError(
            f"--storage {without_password(url)} cannot be used: {without_password_of(url, cause)}. Give "
            "sqlite:///FILE, journal:FILE or postgresql://USER:PASSWORD@HOST/NAME (pip install -e '.[postgres]' -c "
            "constraints.txt; its server running), or leave --storage out for the project's own file. A damaged file: "
            "move it aside and choose another --study name; reports/sweep keeps what was found under the old one."
        ) from e


def open_storage(url: str, state: Path) -> BaseStorage:
    """The storage behind a URL; made, under a lock, if it is a file that does not exist yet.

    Raises:
        UserError: it cannot be reached or read.
    """
    import optuna
    from optuna.storages import RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # our own lines report its trials
    state.mkdir(parents=True, exist_ok=True)
    with explain_storage_errors(url), FileLock(state / "optuna.lock"):
        if url.startswith(JOURNAL):
            return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
        if "://" not in url:
            raise OSError("it is no URL")
        # Seconds; SQLite's writers queue, a server is given up, and a connection is tried before it is used again.
        database = url.partition(":")[0].partition("+")[0]
        wait = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 20}}.get(database, {})
        return RDBStorage(url, engine_kwargs={"connect_args": wait, "pool_pre_ping": True})


def close(storage: BaseStorage) -> None:
    """Gives its connections back."""
    from optuna.storages import RDBStorage

    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def open_study(
    storage: BaseStorage,
    url: str,
    name: str,
    state: Path,
    *,
    definition: Mapping[str, Any],
    sampler: BaseSampler,
    pruner: BasePruner,
    first: Mapping[str, Any] | None = None,
) -> Study:
    """The study called `name`, made if there is none.

    Args:
        storage: from `open_storage`.
        url: its URL, for messages.
        name: study name.
        state: state folder, for the lock under which a new study gets its definition.
        definition: all that makes two trials comparable; a study keeps the one it began with.
        sampler: proposes the points.
        pruner: ends trials of a study with one objective.
        first: the point of trial 0 of a new study, as storages keep it; None leaves it to the sampler.

    Raises:
        UserError: the name belongs to a study with another definition.
    """
    import optuna

    objectives = definition["objectives"]
    with explain_storage_errors(url), FileLock(state / "optuna.lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # names of metrics, for the dashboard
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(objectives.values()),
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        known = study.user_attrs.get(DEFINITION)
        if known is None and not study.trials:
            study.set_user_attr(IDENTITY, uuid.uuid4().hex)
            study.set_user_attr(DEFINITION, json.dumps(definition))
            study.set_metric_names(list(objectives))
            if first is not None:
                study.enqueue_trial(dict(first))
            return study
    if known is None:
        where = without_password(url)
        raise UserError(f"--study {name} in {where} was not made by `detoxlens sweep`; choose another name.")
    if changed := differences(json.loads(known), definition):
        raise UserError(
            f"--study {name} was begun with other settings, so its trials cannot be compared with new ones: "
            f"{'; '.join(changed[:6])}{'; ...' if len(changed) > 6 else ''}. Choose another --study name, "
            "or set them back."
        )
    return study


def load_study(storage: BaseStorage, url: str, name: str) -> tuple[Study, dict[str, Any]]:
    """A study that exists, and its definition.

    Raises:
        UserError: there is none of that name; the message lists those there are.
    """
    import optuna

    from detoxlens.common.errors import did_you_mean

    with explain_storage_errors(url):
        names = optuna.get_all_study_names(storage)
        if name in names:
            study = optuna.load_study(study_name=name, storage=storage)
            if known := study.user_attrs.get(DEFINITION):
                return study, json.loads(known)
    raise UserError(
        f"{without_password(url)} holds no sweep called {name!r}.{did_you_mean(name, names)} There are: "
        f"{', '.join(names) or 'none'}. `detoxlens sweep --study {name}` begins one."
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`objectives.toxicity/val/mean: absent, now "minimize"`, ... for every leaf that differs."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        ours, theirs = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += differences(ours, theirs, f"{prefix}{key}.")
        elif json.dumps(ours) != json.dumps(theirs):
            said = ["absent" if value == _ABSENT else json.dumps(value) for value in (ours, theirs)]
            found.append(f"{prefix}{key}: {said[0]}, now {said[1]}")
    return found


_ABSENT = "\0absent"
