"""Sources of data sets: a local file, a URL, or a Hugging Face dataset id - always handed on as a local file.

A download lies in a temporary folder and is gone afterwards: what DVC versions is what `prepare` makes of it. A URL or
an id whose content may move is pinned by `#sha256=<hex>` or `@<revision>`.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import logging
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detoxlens.common.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".txt", ".gz", ".zip")


@dataclass(frozen=True, slots=True)
class Dropped:
    """One row that was read and not kept.

    Dropped(row="line 13, dialogue 2503, turn 2", reason="hater turn without a reply")
    """

    row: str
    reason: str


@contextmanager
def local_file(source: str, root: Path, *, key: str, form: Literal["csv", "jsonl"]) -> Iterator[Path]:
    """Yields `source` as a readable local file, in the given form.

    Args:
        source: Path (relative to `root` or absolute), http(s) URL, or `[hf:]owner/name[@revision]`.
        root: The repository root.
        key: The params key that names the source, for messages.
        form: What a hub data set, which has no form of its own, is written as.

    Raises:
        UserError: the file is missing or is a folder, the download fails or differs from its `#sha256=`, or the hub has
            no such data set.
    """
    if source.startswith(("http://", "https://")):
        with tempfile.TemporaryDirectory(prefix="detoxlens-") as folder:
            yield _download(source, Path(folder) / f"download.{form}", key)
        return
    path = root / source
    hub = _HUB_ID.fullmatch(source.removeprefix("hf:"))
    if source.startswith("hf:") and not hub:
        raise UserError(
            f"{key}={source!r} is no Hugging Face dataset id; write hf:owner/name or hf:owner/name@revision."
        )
    if hub and (source.startswith("hf:") or not (path.exists() or source.endswith(_FILE_SUFFIXES))):
        with tempfile.TemporaryDirectory(prefix="detoxlens-") as folder:
            yield _from_hub(hub["id"], hub["revision"], Path(folder) / f"hub.{form}", key)
        return
    if path.is_dir():
        raise UserError(f"{key}={source!r} is a folder; name the {form.upper()} file in it.")
    if not path.is_file():
        raise UserError(
            f"{key}={source!r}: {path} does not exist. Set {key} to a {form.upper()} file (relative to the project's "
            f"root, or absolute), to a URL, or to a Hugging Face dataset id (hf:owner/name)."
        )
    yield path


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_utf8_lines(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line with its ending) without holding the file in memory; a leading BOM is dropped.

    Args:
        path: The local file.
        source: How the user knows it, for messages.

    Raises:
        UserError: a line is not UTF-8.
    """
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as e:
                start = e.start + (3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0)
                raise UserError(
                    f"{source} is not UTF-8: byte 0x{raw[start]:02x} at offset {offset + start} (line {number}, byte "
                    f"{start + 1} of it). {_encoding_hint(raw, number)}"
                ) from None
            yield number, line
            offset += len(raw)


def read_csv(path: Path, source: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line a row begins on, its fields by column); line 1 is the header.

    Raises:
        UserError: the file is empty, not UTF-8 or malformed, or its header lacks one of `columns`.
    """
    reader = csv.reader((line for _, line in read_utf8_lines(path, source)), strict=True)
    begins = 1
    try:
        header = next(reader, None)
        if header is None:
            raise UserError(f"{source} is empty; it must begin with the header {','.join(columns)}.")
        if missing := [column for column in columns if column not in header]:
            raise UserError(
                f"{source} lacks the column {missing[0]!r}.{did_you_mean(missing[0], header)} Its header is "
                f"{','.join(header)}; it must name {','.join(columns)}."
            )
        begins = reader.line_num + 1
        for fields in reader:
            if fields:  # a blank line is no row
                if len(fields) != len(header):
                    raise UserError(
                        f"{source}, line {begins}: {len(fields)} fields, but the header has {len(header)}; put texts "
                        f"that hold commas, quotes or line breaks into double quotes."
                    )
                yield begins, dict(zip(header, fields, strict=True))
            begins = reader.line_num + 1
    except csv.Error as e:
        raise UserError(f"{source}, line {begins}: {e}; is a double quote missing or not doubled?") from None


def _encoding_hint(raw: bytes, number: int) -> str:
    if number == 1 and raw[:2] == b"\x1f\x8b":
        return "It is compressed with gzip: unpack it first."
    if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "It looks like UTF-16: convert it, e.g. `iconv -f UTF-16 -t UTF-8`."
    return "Save it as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8` if it came from a Windows spreadsheet."


def _download(source: str, path: Path, key: str) -> Path:
    url, _, pin = source.partition("#")
    if pin and not re.fullmatch(r"sha256=[0-9a-f]{64}", pin):
        raise UserError(f"{key}={source!r}: what follows # must be sha256= and 64 lower-case hex digits.")
    log.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
    except (
        OSError,
        http.client.HTTPException,
        ValueError,
    ) as e:  # URLError and timeouts are OSError; ValueError: bad URL
        raise UserError(
            f"{key}={source!r} could not be downloaded: {e}. Check the address and the network, or download the file "
            f"yourself and set {key} to its path."
        ) from None
    size = path.stat().st_size
    if expected is not None and size != int(expected):  # http.client ends a broken body without a word
        raise UserError(f"{key}={source!r}: the download broke off after {size} of {expected} bytes; run it again.")
    if pin and (actual := sha256_of(path)) != pin.removeprefix("sha256="):
        raise UserError(
            f"{key}={source!r}: the file has changed, its sha256 is now {actual}. Check what changed; if it is meant, "
            f"put the new digest behind the #."
        )
    return path


def _from_hub(dataset_id: str, revision: str | None, path: Path, key: str) -> Path:
    import datasets

    log.info("loading data set %s from the hub", dataset_id)
    try:
        parts = datasets.load_dataset(dataset_id, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        # RuntimeError: a data set that is a script. A broken file is "an error occurred", with the reason as its cause.
        reason = str(e.__cause__ or e).strip().partition("\n")[0] or type(e).__name__
        raise UserError(
            f"{key}: {dataset_id}{f'@{revision}' if revision else ''} is no file here, and could not be loaded from "
            f"the Hugging Face Hub: {reason}. Check the spelling, the network"
            f" and (for gated data) your login, or set {key} to a local file."
        ) from None
    rows = datasets.concatenate_datasets(list(parts.values()))  # all parts: the splits are ours to make
    if path.suffix == ".csv":
        rows.to_csv(path)
    else:
        rows.to_json(path, force_ascii=False)
    return path
