"""Unfinished work on disk, outside every DVC out: one locked folder per (stage, key).

DVC deletes a stage's outs before it runs, so what a long stage has finished waits in `<state>/scratch/<stage>/<key>`
and is moved into the out when complete. The key covers everything that decides the bytes; another key, other bytes.

    key = scratch_key(modules=[__name__], params={...}, inputs=[prompts, adapter], num_threads=2)
    with open_scratch(layout.state, "generate@tiny-neox-it", key) as scratch:
        log = scratch.log("completions")
        done = log.read()               # what an earlier, killed run has left
        log.append(rows)                # on disk when it returns
        replace_output(scratch.path / "completions.parquet", layout.completions(model, variant))
        scratch.finish()

Several processes may do parts of the work: each opens the folder under the name of its part and writes logs of its own;
the process that opens it as a whole reads them all, does what is left, and finishes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from filelock import FileLock, Timeout

from detoxlens.common.errors import UserError, explain_full_disk
from detoxlens.common.fingerprint import code_sha256

WAIT_SECONDS = 10.0
"""How long a part waits for a lock that other parts hold for an instant."""
KEPT_DAYS = 14.0
"""How long the unfinished work of another checkout is kept after its last change."""
PACKAGES = ("torch", "transformers", "peft", "trl")
"""The packages whose version decides the bytes of a result."""


def scratch_key(*, modules: Sequence[str], params: Mapping[str, Any], inputs: Sequence[Path], num_threads: int) -> str:
    """64 hex digits that change with anything that may change a result's bytes.

    Args:
        modules: dotted names of the modules that make the result; what they import counts too (`common.fingerprint`).
        params: every setting that counts, seeds included; must be JSON.
        inputs: files and folders that are read, in a fixed order. Their content counts, not their place or date.
        num_threads: torch threads; sums in another order round differently.

    Raises:
        UserError: an input does not exist.
    """
    digest = hashlib.sha256()
    versions = {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    code = [code_sha256(module) for module in modules]
    settings = {"params": params, "num_threads": num_threads, "versions": versions, "code": code}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for path in inputs:
        digest.update(b"\x1e" + _content_sha256(path).encode())
    return digest.hexdigest()


def _content_sha256(path: Path) -> str:
    """Hash of a file, or of the names and contents of a folder's files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise UserError(f"{path} does not exist; `dvc repro` makes it.")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = [f"{p.relative_to(path).as_posix()} {_content_sha256(p)}" for p in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class LineLog:
    """Rows of JSON in a file that only grows; a row that was appended survives a kill, a torn one is dropped."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, *, repair: bool = True) -> list[dict[str, Any]]:
        """All whole rows, oldest first.

        Args:
            repair: cut what follows the last whole row off the file; False for a file that another process may be at.
        """
        return list(self.each(repair=repair))

    def each(self, *, repair: bool = True) -> Iterator[dict[str, Any]]:
        """The same, a row in memory at a time; it is cut after the last one."""
        if not self.path.exists():
            return
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                row = _row(line)
                if row is None:
                    break
                yield row
                whole += len(line)
            size = os.fstat(file.fileno()).st_size
        if repair and whole < size:
            os.truncate(self.path, whole)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds the rows and returns when they are on disk. On a full disk none of them is kept.

        Raises:
            UserError: the disk is full.
        """
        with explain_full_disk(self.path), self.path.open("ab") as file:
            before = _end_of_last_line(self.path)
            file.truncate(before)
            try:
                file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, before)
                raise


def _row(line: bytes) -> dict[str, Any] | None:
    """The row on a line, or None when the line was cut short (a power cut may also leave zero bytes)."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _end_of_last_line(path: Path) -> int:
    """Offset just after the file's last newline, in bytes."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


class Scratch:
    """The folder of one stage and key while this process holds its lock; made by `open_scratch`."""

    def __init__(self, path: Path, part: str | None = None, *, place: str = ""):
        self.path, self.place = path, place
        """Free for any file of the stage; kept until `finish`."""
        self.part = part
        """What this process does of the work; None is all that is left of it."""
        self.finished = False

    def log(self, name: str) -> LineLog:
        """This process's log called `name`, a file of its own; a name may have dots (0, 0.5)."""
        return LineLog(self.path / (f"{name}.jsonl" if self.part is None else f"{name}+{self.part}.jsonl"))

    def read_logs(self, name: str) -> list[dict[str, Any]]:
        """The rows of the logs called `name`, this process's own and those of all parts."""
        return list(self.each_logged(name))

    def each_logged(self, name: str) -> Iterator[dict[str, Any]]:
        """The same, one in memory at a time."""
        own = self.log(name).path
        paths = sorted({own, *self.path.glob(f"{name}.jsonl"), *self.path.glob(f"{name}+*.jsonl")})
        for path in paths:
            yield from LineLog(path).each(repair=self.part is None or path == own)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, as JSON gives it back, to the first process that asked: the same for all parts."""
        path = self.path / f"{name}.json"
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(make()))
                partial.rename(path)
        return json.loads(path.read_text())

    def finish(self) -> None:
        """Deletes this folder and the stage's outdated ones. Call when all outs are in place.

        Outdated is another key of this checkout that no process holds. What another checkout (an experiment in DVC's
        temporary folder, a worktree) was killed at is kept for `KEPT_DAYS`: it may be run again.
        """
        shutil.rmtree(self.path)
        self.finished = True
        for other in self.path.parent.iterdir():
            if other.is_dir() and (_owner(other).place in ("", self.place) or _untouched_days(other) > KEPT_DAYS):
                _remove_if_idle(other)


@contextlib.contextmanager
def open_scratch(
    state: Path, stage: str, key: str, *, part: str | None = None, place: Path | None = None
) -> Iterator[Scratch]:
    """The scratch folder of (stage, key), found or made, locked for this process until the block ends.

    Args:
        state: the main repository's state folder (`Layout.state`).
        stage: the stage with its model and variant, e.g. `generate@tiny-neox-it`.
        key: from `scratch_key`.
        part: the part of the work that this process does beside others; None is the whole, and needs the folder alone.
        place: the checkout that the stage stands in. While another checkout does the same work, this one does it in a
            state folder of its own.

    Raises:
        UserError: another process holds the folder or the part, or the disk is full.
    """
    path = state / "scratch" / quote(stage, safe="@") / key
    if place is not None and part is None and _is_held_elsewhere(path, str(place.resolve())):
        path = place / state.name / "scratch" / path.parent.name / key
    with explain_full_disk(path), contextlib.ExitStack() as locks:
        path.mkdir(parents=True, exist_ok=True)
        locks.enter_context(_held(stage, path, part))
        if part is None:
            for other in _parts_of(path):
                locks.enter_context(_held(stage, path, other))
        else:  # the whole looks for parts after it has its lock, and a part for the whole: one of them sees the other
            with _held(stage, path, None, wait_seconds=WAIT_SECONDS):
                pass
        path.mkdir(exist_ok=True)  # an owner that finished between our mkdir and our lock has deleted it
        scratch = Scratch(path, part, place="" if place is None else str(place.resolve()))
        _owner_file(path, part).write_text(f"{os.getpid()}\n{scratch.place}", encoding="utf-8")
        try:
            yield scratch
        finally:
            if scratch.finished:
                _remove_locks(path)


def replace_output(source: Path, destination: Path) -> None:
    """Moves a file or folder into place as a whole, replacing what is there.

    Whoever looks sees the old or the new; a failure leaves the old one and the source. A folder cannot be exchanged in
    one system call, so a kill exactly between two renames leaves the old one as `.<name>.old` beside the destination.

    Raises:
        UserError: the disk is full.
    """
    assert source.exists(), source
    old, partial = (destination.with_name(f".{destination.name}.{word}") for word in ("old", "partial"))
    with explain_full_disk(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _recover(destination, old)
        _remove(partial)
        _rename_or_copy(source, partial)
        try:
            if _is_folder(destination) or (partial.is_dir() and destination.exists()):
                destination.rename(old)
            partial.rename(destination)
        except BaseException:
            _recover(destination, old)
            if not source.exists():
                partial.rename(source)
            raise
    _remove(old)
    _remove(source)


def _recover(destination: Path, old: Path) -> None:
    """Puts back what a killed or failed `replace_output` had moved aside; deletes it where the new one is in place."""
    if os.path.lexists(old) and not os.path.lexists(destination):
        old.rename(destination)
    _remove(old)


def _rename_or_copy(source: Path, target: Path) -> None:
    """Renames, or copies where the two lie on different file systems."""
    try:
        source.rename(target)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        try:
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
        except BaseException:
            _remove(target)
            raise


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    """Deletes a file, a folder or a link, if there is one."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(stage: str, path: Path, part: str | None, *, wait_seconds: float = 0) -> Iterator[None]:
    """Holds the lock of the whole, or of a part."""
    lock = _lock_of(path, part)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise UserError(
            f"{stage}{f' ({part})' if part else ''} is already running on the same inputs and params, in process "
            f"{_owner(path, part).pid} (lock: {lock.lock_file}). Wait for it, or stop that process and run the same "
            "command again: what it has finished is kept."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _lock_of(path: Path, part: str | None = None) -> FileLock:
    return FileLock(path.with_name(f"{path.name}.lock" if part is None else f"{path.name}.{part}.lock"), timeout=0)


def _parts_of(path: Path) -> list[str]:
    """The parts that some process has, or had, a lock for."""
    files = path.parent.glob(f"{path.name}.*.lock")
    return sorted(file.name.removeprefix(f"{path.name}.").removesuffix(".lock") for file in files)


def _remove_locks(path: Path) -> None:
    for part in (None, *_parts_of(path)):
        Path(_lock_of(path, part).lock_file).unlink(missing_ok=True)


def _owner_file(path: Path, part: str | None) -> Path:
    return path / ("owner" if part is None else f"owner.{part}")


class _Owner(NamedTuple):
    """Who holds a folder, or held it last."""

    pid: str
    """`?` in the instant before it is written."""
    place: str
    """The checkout; empty where it is not known."""


def _owner(path: Path, part: str | None = None) -> _Owner:
    try:
        pid, _, place = _owner_file(path, part).read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return _Owner("?", "")
    return _Owner(pid, place)


def _is_held_elsewhere(path: Path, place: str) -> bool:
    """Whether a process of another checkout works in the folder."""
    if not path.exists() or _owner(path).place in ("", place):
        return False
    lock = _lock_of(path)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _untouched_days(path: Path) -> float:
    """Days since something was last written into the folder, by the file system's clock."""
    newest = max((p.stat().st_mtime for p in (path, *path.rglob("*"))), default=0.0)
    return (time.time() - newest) / 86400


def _remove_if_idle(path: Path) -> None:
    """Deletes the folder of another key unless a process holds it or a part of it."""
    with contextlib.ExitStack() as locks:
        try:
            for part in (None, *_parts_of(path)):
                locks.enter_context(_lock_of(path, part))
        except Timeout:
            return
        shutil.rmtree(path)
        _remove_locks(path)
