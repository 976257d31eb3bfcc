"""A small classifier learnt from recorded scores: a stand-in for a scorer that is gone, e.g. Perspective.

    recorded files -> examples -> texts of held-out prompts set aside -> student -> data/recorded/scorers/<name>
                                                \\-> how well it does on them: calibration.json, README.md

The folder is an `hf:` scorer, or a reward model. Which prompts are held out depends on the prompt alone, so that a
study can draw its own prompts from those that the classifier has not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detoxlens.common.artifacts import Layout, write_json, write_text
from detoxlens.common.errors import UserError
from detoxlens.common.seeding import fix_global_state
from detoxlens.common.text import is_blank
from detoxlens.jobs.scratch import open_scratch, replace_output, scratch_key
from detoxlens.models.classifier import TextClassifier
from detoxlens.params.report import Bootstrap
from detoxlens.params.toxicity import SCORERS
from detoxlens.recorded.calibrate import sources, summary
from detoxlens.recorded.completions import EMPTY_CODE, unwrapped
from detoxlens.recorded.completions import columns_of as completion_columns
from detoxlens.recorded.fit import calibrate
from detoxlens.recorded.student import Scores, Student, train_student
from detoxlens.recorded.table_file import probability, read_table, require

HELD_OUT_SHARE = 0.2
MIN_EXAMPLES = 200
"""On either side."""


@dataclass(frozen=True, slots=True)
class Example:
    """One scored text: Example(text="Zorgons hum.", prompt="Tell me.", part="PT", scores=(.2,))"""

    text: str
    prompt: str
    """What it answers; texts of one prompt are held out together. The text itself where no prompt is recorded."""
    part: str
    """The file it is from."""
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns(text="responses", prompt="prompts", scores={"toxicity": "pro_API_response_score"})"""

    text: str
    prompt: str | None
    scores: Mapping[str, str]
    """Attribute -> column; the first is the one that is measured."""


def columns_of(format: str, *, text: str | None, prompt: str | None, scores: Sequence[str]) -> Columns:
    """A format's columns (`plain`, `rewardlm`), those named otherwise replaced.

    Args:
        format: name of the format.
        text: column of the texts.
        prompt: column of the prompts.
        scores: attribute=column.

    Raises:
        UserError: no such format, or an entry of `scores` is not of that form.
    """
    known = completion_columns(format, None)
    pairs = [pair.partition("=") for pair in scores]
    for pair, (attribute, equals, column) in zip(scores, pairs, strict=True):
        if not attribute or not equals or not column:
            raise UserError(f"--score {pair!r} is not of the form <attribute>=<column>, e.g. toxicity=TOXICITY.")
    return Columns(
        text=text or ("text" if format == "plain" else known["completion"]),
        prompt=prompt or (None if format == "plain" else known["prompt"]),
        scores={a: c for a, _, c in pairs} or {"toxicity": known["toxicity"]},
    )


def is_held_out(prompt: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether texts that answer `prompt` are set aside; the chance over prompts is `share`."""
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def read_examples(files: Sequence[Path], columns: Columns) -> tuple[list[Example], int]:
    """The scored texts of all files in order, and the number of rows left out: without a text, or without any score.

    Raises:
        UserError: a column is missing, or a score is neither 0..1 nor one of the marks of none (empty, null, -1).
    """
    examples: list[Example] = []
    num_without = 0
    wanted = [columns.text, *columns.scores.values(), *([columns.prompt] if columns.prompt else [])]
    for file in files:
        rows = read_table(file)
        require(file, rows, wanted, remedy="Name the columns: --text-column, --score, --prompt-column.")
        for number, row in enumerate(rows, 1):
            scores = tuple(_score(file, number, column, row[column]) for column in columns.scores.values())
            text = row[columns.text]
            if not isinstance(text, str) or is_blank(text) or all(score is None for score in scores):
                num_without += 1
                continue
            prompt = unwrapped(str(row[columns.prompt])) if columns.prompt else text
            examples.append(Example(text, prompt, file.stem, scores))
    return examples, num_without


def distil(
    root: Path,
    files: Sequence[Path],
    columns: Columns,
    *,
    name: str,
    seed: int,
    num_threads: int,
    bootstrap: Bootstrap,
    student: Student | None = None,
) -> str:
    """Trains a classifier on `files` and writes data/recorded/scorers/<name>; what it is worth, in a few lines.

    Raises:
        UserError: too few texts are left to train or to measure on; see `read_examples`.
    """
    student, layout, scorer = student or Student(), Layout(root), f"hf:{SCORERS}/{name}"
    examples, num_without = read_examples(files, columns)
    train, held_out = ([e for e in examples if is_held_out(e.prompt) is side] for side in (False, True))
    if min(len(train), len(held_out)) < MIN_EXAMPLES:
        raise UserError(
            f"--against: {len(train)} scored texts to train on and {len(held_out)} of held-out prompts are left; at "
            f"least {MIN_EXAMPLES} of each are needed. Give more files."
        )
    settings = {"student": asdict(student), "columns": [columns.text, columns.prompt, dict(columns.scores)]}
    key = scratch_key(modules=[__name__], params=settings | {"seed": seed}, inputs=list(files), num_threads=num_threads)
    fix_global_state(seed, num_threads)
    with open_scratch(layout.state, f"distil@{name}", key, place=root) as scratch:
        built = scratch.path / name
        train_student(
            [e.text for e in train],
            [e.scores for e in train],
            list(columns.scores),
            student,
            seed=seed,
            folder=built,
            checkpoint=scratch.path / "student.pt",
        )
        label = next(iter(columns.scores))
        classifier = TextClassifier.load(str(built), label=label)
        measured = [e for e in held_out if e.scores[0] is not None]
        found = {
            "scorer": scorer,
            "scorer_version": classifier.version,
            "label": label,
            "against": sources(files, columns.scores[label]),
            "bootstrap": bootstrap.model_dump(),
            "num_without_reference": num_without,
            "num_not_scored": 0,
            **calibrate(
                [e.text for e in measured],
                np.array(classifier.prob([e.text for e in measured])),
                np.array([e.scores[0] for e in measured]),
                bootstrap,
                splits=[e.part for e in measured],
            ),
        }
        write_json(built / "calibration.json", found)
        lines = [f"{len(train)} texts to train on, {len(held_out)} of held-out prompts", *summary(found).splitlines()]
        write_text(built / "README.md", _card(name, files, columns, student, lines))
        replace_output(built, root / SCORERS / name)
        scratch.finish()
    message = "\n".join(lines)
    return (
        f"{message}\nWrote {SCORERS}/{name}: the scorer {scorer}; toxicity.calibration may name its calibration.json."
    )


def _score(file: Path, number: int, column: str, value: object) -> float | None:
    found = probability(file, number, column, value)
    if found is not None and not (0 <= found <= 1 or found == EMPTY_CODE):
        raise UserError(f"{file}: row {number}: {column}={found} is not between 0 and 1.")
    return None if found == EMPTY_CODE else found


def _card(name: str, files: Sequence[Path], columns: Columns, student: Student, lines: Sequence[str]) -> str:
    """The folder's README: what it was made from, and how well it does on prompts it has not seen."""
    of_files = "".join(f"- {s['file']}, sha256 {s['sha256']}\n" for s in sources(files, columns.text))
    of_scores = ", ".join(f"`{attribute}` from `{column}`" for attribute, column in columns.scores.items())
    found = "".join(f"    {line}\n" for line in lines)
    return (
        f"# {name}\n\n"
        f"A RoBERTa of {student.num_layers} layers of width {student.hidden_size}, trained by `detoxlens distil` on "
        f"recorded scores ({of_scores}). It imitates the scorer that made them on texts like these, mistakes included, "
        f"and knows nothing else. {HELD_OUT_SHARE:.0%} of the prompts were held out; half of their texts fit the "
        f"threshold and the map in calibration.json, the other half gave these figures:\n\n{found}\n{of_files}"
    )
