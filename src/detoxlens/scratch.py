"""Progress that outlives a kill, outside every DVC out: one locked folder per (stage, key).

DVC deletes a stage's outs before it runs, so what a long stage has finished waits in `<state>/scratch/<stage>/<key>`
and is moved into the out when complete. The key covers everything that decides the bytes; another key, other bytes.

    key = scratch_key(params={...}, inputs=[prompts, adapter], num_threads=2)
    with open_scratch(layout.state, "generate@tiny-neox-it", key) as scratch:
        log = scratch.log("completions")
        done = log.read()               # what an earlier, killed run has left
        log.append(rows)                # on disk when it returns
        publish(scratch.path / "completions.parquet", layout.completions(model, variant))
        scratch.finish()
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from detoxlens.errors import UserError, full_disk_told

PACKAGES = ("torch", "transformers", "peft", "trl")
"""The packages whose version decides the bytes of a result."""


def scratch_key(*, params: Mapping[str, Any], inputs: Sequence[Path], num_threads: int) -> str:
    """64 hex digits that change with anything that may change a result's bytes.

    Args:
        params: every setting that counts, seeds included; must be JSON.
        inputs: files and folders that are read, in a fixed order. Their content counts, not their place or date.
        num_threads: torch threads; sums in another order round differently.

    Raises:
        UserError: an input does not exist.
    """
    digest = hashlib.sha256()
    versions = {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    settings = {"params": params, "num_threads": num_threads, "versions": versions}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for path in (*inputs, Path(__file__).parent):
        only = ".py" if path == Path(__file__).parent else ""
        digest.update(b"\x1e" + _content_sha256(path, suffix=only).encode())
    return digest.hexdigest()


def _content_sha256(path: Path, *, suffix: str = "") -> str:
    """Hash of a file, or of the names and contents of a folder's files that end in `suffix`."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise UserError(f"{path} does not exist; `dvc repro` makes it.")
    files = sorted(p for p in path.rglob(f"*{suffix}") if p.is_file())
    lines = [f"{p.relative_to(path).as_posix()} {_content_sha256(p)}" for p in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class LineLog:
    """Rows of JSON in a file that only grows; a row that was appended survives a kill, a torn one is dropped."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """All whole rows, oldest first. What follows the last whole row is cut off the file."""
        rows: list[dict[str, Any]] = []
        whole = 0
        data = self.path.read_bytes() if self.path.exists() else b""
        for line in data.splitlines(keepends=True):
            row = _row(line)
            if row is None:
                break
            rows.append(row)
            whole += len(line)
        if whole < len(data):
            os.truncate(self.path, whole)
        return rows

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds the rows and returns when they are on disk. On a full disk none of them is kept.

        Raises:
            UserError: the disk is full.
        """
        with full_disk_told(self.path), self.path.open("ab") as file:
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

    def __init__(self, path: Path):
        self.path = path
        """Free for any file of the stage; kept until `finish`."""
        self.finished = False

    def log(self, name: str) -> LineLog:
        """The log called `name`; each name is a file of its own."""
        return LineLog(self.path / f"{name}.jsonl")

    def finish(self) -> None:
        """Deletes this folder and the stage's other keys that no process holds. Call when all outs are in place."""
        shutil.rmtree(self.path)
        self.finished = True
        for other in self.path.parent.iterdir():
            if other.is_dir():
                _remove_if_idle(other)


@contextlib.contextmanager
def open_scratch(state: Path, stage: str, key: str) -> Iterator[Scratch]:
    """The scratch folder of (stage, key), found or made, locked for this process until the block ends.

    Args:
        state: the project's state folder (`Layout.state`).
        stage: the stage with its model and variant, e.g. `generate@tiny-neox-it`.
        key: from `scratch_key`.

    Raises:
        UserError: another process holds the folder, or the disk is full.
    """
    path = state / "scratch" / quote(stage, safe="@") / key
    lock = _lock_of(path)
    with full_disk_told(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{stage} is already running on the same inputs and params, in process {_owner(path)} "
                f"(lock: {lock.lock_file}). Wait for it, or stop that process and run the same command again: "
                "what it has finished is kept."
            ) from None
        scratch = Scratch(path)
        try:
            path.mkdir(exist_ok=True)  # an owner that finished between our mkdir and our lock has deleted it
            (path / "owner").write_text(str(os.getpid()))
            yield scratch
        finally:
            if scratch.finished:
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def publish(source: Path, destination: Path) -> None:
    """Moves a file or folder into place as a whole, replacing what is there.

    Whoever looks sees the old or the new; a failure leaves the old one and the source. A folder cannot be exchanged in
    one system call, so a kill exactly between two renames leaves the old one as `.<name>.old` beside the destination.

    Raises:
        UserError: the disk is full.
    """
    assert source.exists(), source
    old, partial = (destination.with_name(f".{destination.name}.{word}") for word in ("old", "partial"))
    with full_disk_told(destination):
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
    """Puts back what a killed or failed `publish` had moved aside; deletes it where the new one is in place."""
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


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_name(path.name + ".lock"), timeout=0)


def _owner(path: Path) -> str:
    """The process id that the lock's holder has written, or `?` in the instant before it does."""
    try:
        return (path / "owner").read_text()
    except FileNotFoundError:
        return "?"


def _remove_if_idle(path: Path) -> None:
    """Deletes the folder of another key unless a process holds it."""
    lock = _lock_of(path)
    try:
        lock.acquire()
    except Timeout:
        return
    try:
        shutil.rmtree(path)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()
