"""docs/example.md is run as it is read: each command in its order, what it prints compared with what the page shows.

Numbers are not compared, for another processor's last digits are others; `...` stands for lines that are left out, and
at the end of a line for its rest.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.root import ROOT
from tests.tools.project import run

PAGE = ROOT / "docs/example.md"
BLOCK = re.compile(r"^## .*?$|```(console|yaml)\n(.*?)```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[+−-]?\d+(\.\d+)?")
LEFT_OUT = "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Command(section="Run it", typed="dvc repro", printed=["...", "Running stage 'report':"])"""

    section: str
    typed: str
    printed: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What the reader writes: File(name="presets/small.yaml", text="# presets/small.yaml ...")"""

    name: str
    text: str


def steps() -> Iterator[Command | File]:
    """What the page asks for, from top to bottom."""
    section = ""
    for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        kind, text = match.groups()
        if kind is None:
            section = match[0].removeprefix("## ")
        elif kind == "yaml":
            yield File(name=text.partition("\n")[0].removeprefix("# "), text=text)
        else:
            for one in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                typed, *printed = one.rstrip("\n").split("\n")
                yield Command(section=section, typed=typed, printed=printed)


def words(line: str) -> list[str]:
    """Of a line without its numbers, the bars of tables and the widths of columns."""
    return NUMBER.sub("0", re.sub(r"[-─━]{2,}", "--", line)).split()


def is_as_shown(printed: list[str], shown: list[str]) -> bool:
    """Does each line shown stand in its place, with more between them only where the page says `...`?"""
    if not shown:
        return not printed
    if shown[0] == LEFT_OUT:
        return any(is_as_shown(printed[start:], shown[1:]) for start in range(len(printed) + 1))
    if not printed:
        return False
    found, wanted = words(printed[0]), words(shown[0])
    if wanted[-1] == LEFT_OUT:
        found, wanted = found[: len(wanted) - 1], wanted[:-1]
    return found == wanted and is_as_shown(printed[1:], shown[1:])


def test_what_is_left_out_and_numbers_may_differ_and_nothing_else():
    assert is_as_shown(["a 1.5 %", "x", "y", "b"], ["a 22 %", "...", "b"])
    assert is_as_shown(["b"], ["...", "b", "..."])
    assert is_as_shown(["a b c", "d"], ["a ...", "d"])
    assert not is_as_shown(["a", "x", "b"], ["a", "b"])
    assert not is_as_shown(["a", "b", "c"], ["a", "...", "b"])


def follow(folder: Path, *, until: str | None = None) -> None:
    """Types what the page says in an empty folder beside a clone; up to the section `until`."""
    (folder / "detoxlens/docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs/stand_ins.py", folder / "detoxlens/docs")
    here = folder / "example"
    here.mkdir(exist_ok=True)
    for step in steps():
        if isinstance(step, File):
            (here / step.name).write_text(step.text, encoding="utf-8")
            continue
        if step.section == until:
            return
        if step.typed.startswith("cd "):
            here = here / step.typed.removeprefix("cd ")
            continue
        if until and (here / "my-model").exists() and step.typed.startswith("python "):
            continue
        printed = run(step.typed, cwd=here, timeout=3600).splitlines()
        lines = [line.rstrip() for line in printed if line.strip()]
        assert is_as_shown(lines, step.printed), "\n".join([f"$ {step.typed}", *lines])
    assert until is None, f"the page has no section {until!r}"


def test_a_study_of_ones_own_is_written_as_the_page_says(tmp_path):
    """With files that nothing reads yet, instead of the stand-ins, whose training takes most of a minute."""
    here = tmp_path / "example"
    for name in ("my-model", "my-scorer"):
        (here / name).mkdir(parents=True)
        (here / name / "config.json").write_text("{}", encoding="utf-8")
    (here / "my-prompts.csv").write_text("text\nZorgons are\n", encoding="utf-8")
    follow(tmp_path, until="Look before it runs")


@pytest.mark.slow
def test_the_page_from_top_to_bottom(tmp_path):
    follow(tmp_path)
