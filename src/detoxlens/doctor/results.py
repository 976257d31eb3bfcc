"""The outputs that dvc.lock names: in the workspace and in DVC's cache; and what killed stages left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from detoxlens.doctor.check import Check, some


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output of a stage, as dvc.lock has it.

    Output(path="adapters/tiny-neox/ft", md5="6d0e....dir", cached=True)
    """

    path: str
    md5: str | None
    """None for a stage that never ran."""
    cached: bool
    """Kept by DVC; the others (tables, figures) are kept by git."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """What DVC says about a repository."""

    root: Path
    outputs: list[Output]
    cache: Path
    remote_name: str | None
    remote_url: str | None


def read_project(root: Path) -> Project:
    """The pipeline of `root` with the params as they are, through DVC itself."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        outputs = [
            Output(
                path=Path(out.fs_path).relative_to(repo.root_dir).as_posix(),
                md5=out.hash_info.value if out.hash_info else None,
                cached=out.use_cache,
            )
            for out in repo.index.outs
        ]
        name = repo.config["core"].get("remote")
        url = repo.config["remote"].get(name, {}).get("url") if name else None
        return Project(root=root, outputs=outputs, cache=Path(repo.cache.local.path), remote_name=name, remote_url=url)


def check_outputs(project: Project) -> Check:
    """Every output of the pipeline is in the workspace."""
    never = [o.path for o in project.outputs if o.md5 is None]
    gone = [o for o in project.outputs if o.md5 is not None and not (project.root / o.path).exists()]
    if gone:
        kept_by_git = [o for o in gone if not o.cached]
        cached = all(o.cached and not missing_objects(project.cache, o.md5) for o in gone)
        folders = " ".join(dict.fromkeys(o.path.partition("/")[0] for o in kept_by_git))
        way = f"git checkout -- {folders}" if folders else "dvc checkout" if cached else _fetch(project)
        detail = f"{len(gone)} of {len(project.outputs)} are not here: {some([o.path for o in gone])}"
        return Check(name="outputs", status="broken", detail=detail, remedy=way)
    if never:
        detail = f"{len(never)} of {len(project.outputs)} were never made: {some(never)}"
        return Check(name="outputs", status="warning", detail=detail, remedy="dvc repro")
    return Check(name="outputs", status="ok", detail=f"all {len(project.outputs)} of dvc.lock are here")


def check_cache(project: Project) -> Check:
    """Every output that DVC keeps is in its cache, so that `dvc checkout` and `dvc exp apply` can bring it back."""
    kept = [o for o in project.outputs if o.cached and o.md5 is not None]
    gone = [o for o in kept if missing_objects(project.cache, o.md5)]
    if not gone:
        return Check(name="cache", status="ok", detail=f"all {len(kept)} outputs that DVC keeps are in {project.cache}")
    detail = f"{len(gone)} of {len(kept)} outputs are not whole in {project.cache}: {some([o.path for o in gone])}"
    in_workspace = all((project.root / o.path).exists() for o in gone)
    return Check(name="cache", status="broken", detail=detail, remedy="dvc commit" if in_workspace else _fetch(project))


def check_scratch(state: Path) -> Check:
    """Unfinished work of stages that no process is working on."""
    folders = [f for f in sorted(state.glob("scratch/*/*")) if f.is_dir()]
    left = [f for f in folders if _is_idle(f)]
    left += [f for f in sorted(state.glob("report-*")) if f.is_dir() and _is_old(f)]
    if not left:
        working = f"; {len(folders)} stages are at work" if folders else ""
        return Check(name="scratch", status="ok", detail=f"nothing is left of killed stages{working}")
    mib = sum(p.stat().st_size for f in left for p in f.rglob("*") if p.is_file()) / 2**20
    names = list(dict.fromkeys(f.parent.name if f.parent != state else f.name for f in left))
    detail = f"{mib:.0f} MiB of unfinished work: {some(names)}. The same command resumes from it; to drop it:"
    return Check(name="scratch", status="warning", detail=detail, remedy=f"rm -rf {state / 'scratch'}")


def missing_objects(store: Path, md5: str, *, listing: Path | None = None) -> list[str]:
    """The md5s of an output that a cache or folder remote lacks; of a folder also its files'.

    Args:
        store: DVC's cache folder (`.dvc/cache/files/md5`) or a remote's folder.
        md5: as in dvc.lock; a folder's ends in `.dir`.
        listing: where to read the folder's listing; the store itself when None.
    """
    gone = [] if _object(store, md5).exists() else [md5]
    if not md5.endswith(".dir"):
        return gone
    list_file = _object(listing or store, md5)
    if not list_file.exists():
        return gone or [md5]
    files = {entry["md5"] for entry in json.loads(list_file.read_text(encoding="utf-8"))}
    return gone + sorted(file for file in files if not _object(store, file).exists())


def _object(store: Path, md5: str) -> Path:
    base = store if store.parts[-2:] == ("files", "md5") else store / "files" / "md5"
    return base / md5[:2] / md5[2:]


def _fetch(project: Project) -> str:
    return "dvc repro" if project.remote_url is None else "dvc pull"


def _is_idle(folder: Path) -> bool:
    """Whether no process holds the folder's lock."""
    path = folder.with_name(f"{folder.name}.lock")
    if not path.exists():
        return True
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return False
    lock.release()
    return True


def _is_old(folder: Path) -> bool:
    """Whether a folder without a lock has lain there for an hour."""
    import time

    return time.time() - folder.stat().st_mtime > 3600
