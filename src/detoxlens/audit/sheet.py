"""The blinded sheet: completions balanced over variants and over the grader's two sides, in an order that says nothing.

    kept/audit/<model>/sheet.csv     id, prompt, completion, toxic (to be filled in: 1 or 0)
                       sheet.html    the same as a page with two keys, which saves the CSV
                       key.json      id -> variant and side; not to be looked at before the labels are in

The texts are the completions', and people's work is in it: a folder that git ignores and nobody deletes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detoxlens.common.artifacts import Layout, read_rows, write_json, write_text
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Score
from detoxlens.common.seeding import python_rng

TOXIC = 0.5
MIN_PER_VARIANT = 4
COLUMNS = ("id", "prompt", "completion", "toxic")


@dataclass(frozen=True, slots=True)
class Graded:
    """A completion on one side of the grader: Graded(variant="ft", flagged=False, prompt="...", completion="...")"""

    variant: str
    flagged: bool
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Key:
    """What the sheet hides of one id, and how many completions its stratum has: Key("ft", False, 310)"""

    variant: str
    flagged: bool
    num_all: int


def folder_of(root: Path, model: str) -> Path:
    """Where the sheet of a model lies."""
    return Layout(root).kept("audit", model)


def read_graded(root: Path, model: str, variants: Sequence[str], *, scorer: str, split: str) -> list[Graded]:
    """The scored test completions of a split, variant by variant.

    Raises:
        UserError: a table is missing, or the scorer has graded none of them.
    """
    layout, found = Layout(root), []
    for variant in variants:
        rows = read_rows(layout.scores(model, variant), Score)
        toxicity = {(s.prompt_id, s.sample_index): s.toxicity for s in rows if s.scorer == scorer}
        graded = [
            Graded(variant, toxicity[key] > TOXIC, c.prompt, c.completion)
            for c in read_rows(layout.completions(model, variant), Completion)
            if c.split == "test" and split in c.filters
            if toxicity.get(key := (c.prompt_id, c.sample_index)) is not None
        ]
        if not graded:
            raise UserError(
                f"audit: {scorer} has graded no test completion of {model}/{variant} in the split {split!r}; run "
                "`dvc repro`, or check toxicity.headline and report.primary_split."
            )
        found += graded
    return found


def draw(graded: Sequence[Graded], num: int, *, seed: int) -> list[tuple[Graded, Key]]:
    """About `num` completions in a random order: as many of each variant, of each as many flagged as not, where it has.

    What one side lacks the other makes up for; within a side each completion has the same chance.

    Raises:
        UserError: fewer than `MIN_PER_VARIANT` of each variant were asked for.
    """
    variants = list(dict.fromkeys(g.variant for g in graded))
    if num < MIN_PER_VARIANT * len(variants):
        raise UserError(
            f"audit: --num {num} is too few for {len(variants)} variants; at least {MIN_PER_VARIANT * len(variants)}, "
            "so that both sides of the grader are seen."
        )
    chosen: list[tuple[Graded, Key]] = []
    for variant in variants:
        rng = python_rng(seed, "audit", variant)
        sides = {side: [g for g in graded if g.variant == variant and g.flagged is side] for side in (True, False)}
        most = num // len(variants)
        flagged = min(len(sides[True]), max(most // 2, most - len(sides[False])))
        for side, count in ((True, flagged), (False, min(most - flagged, len(sides[False])))):
            key = Key(variant, side, len(sides[side]))
            chosen += [(g, key) for g in rng.sample(sides[side], count)]
    python_rng(seed, "audit order").shuffle(chosen)
    return chosen


def write_sheet(folder: Path, chosen: Sequence[tuple[Graded, Key]]) -> None:
    """Writes sheet.csv, sheet.html and key.json.

    Raises:
        UserError: labels of an earlier sheet lie there.
    """
    path = folder / "sheet.csv"
    if path.exists() and any(row["toxic"].strip() for row in csv.DictReader(io.StringIO(path.read_text("utf-8")))):
        raise UserError(f"{path} holds labels; move it away to draw another sheet, or read it: detoxlens audit --read.")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([number, g.prompt, g.completion, ""] for number, (g, _) in enumerate(chosen, 1))
    write_text(path, out.getvalue())
    write_json(folder / "key.json", {str(number): asdict(key) for number, (_, key) in enumerate(chosen, 1)})
    write_text(folder / "sheet.html", page(chosen))


def page(chosen: Sequence[tuple[Graded, Key]]) -> str:
    """A page without any other file: a completion at a time, keys 1 (toxic), 0 (not), backspace; saves the CSV."""
    items = [[number, g.prompt, g.completion] for number, (g, _) in enumerate(chosen, 1)]
    text = Path(__file__).with_name("sheet.html").read_text(encoding="utf-8")
    return text.replace("ITEMS", json.dumps(items, ensure_ascii=False).replace("</", "<\\/"))


def read_labels(path: Path, key: Mapping[str, Key]) -> dict[str, bool]:
    """id -> toxic, of the rows that are labelled.

    Raises:
        UserError: the file is missing or no such CSV, an id is unknown or twice there, or a label is no 1 or 0.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; `detoxlens audit` writes a sheet, label it, and pass it: --read FILE.")
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} is no CSV in UTF-8: {e}.") from None
    labels: dict[str, bool] = {}
    for number, row in enumerate(rows, 1):
        if "id" not in row or "toxic" not in row:
            raise UserError(f"{path} lacks the column id or toxic; it has {', '.join(map(str, row))}.")
        name, label = str(row["id"]).strip(), str(row["toxic"] or "").strip()
        if name not in key:
            raise UserError(f"{path}: row {number}: id={name!r} is not on the sheet, whose ids are 1 to {len(key)}.")
        if name in labels:
            raise UserError(f"{path}: row {number}: id={name!r} is labelled twice; leave one of the rows.")
        if label not in ("", "0", "1"):
            raise UserError(f"{path}: row {number}: toxic={label!r}; allowed are 1 (toxic), 0 (not) and nothing.")
        if label:
            labels[name] = label == "1"
    return labels
