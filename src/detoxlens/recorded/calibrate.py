"""`detoxlens calibrate`: scores recorded texts anew, compares, writes reports/calibration/<scorer>.json and .svg."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detoxlens.common.artifacts import Layout, write_json
from detoxlens.common.errors import UserError
from detoxlens.common.scoring import ScoredText, Scorer
from detoxlens.common.text import is_blank
from detoxlens.jobs.progress import progress
from detoxlens.params.report import Bootstrap
from detoxlens.recorded.calibration import Json
from detoxlens.recorded.fit import calibrate
from detoxlens.recorded.table_file import Row, probability, read_table, require

BATCH = 500
MAX_SPLITS = 12


@dataclass(frozen=True, slots=True)
class Recorded:
    """A text with its reference score: Recorded(text="Zorgons hum.", score=.2, split="all")"""

    text: str
    score: float
    split: str | None


def calibrate_scorer(
    root: Path,
    load_scorer: Callable[[], Scorer],
    files: Sequence[Path],
    *,
    text_column: str,
    score_column: str,
    split_column: str | None = None,
    bootstrap: Bootstrap,
) -> tuple[Json, Path]:
    """What was found, and the JSON file that holds it.

    Texts that are empty, or that either side has no score for, are counted and left out; equal texts with equal
    recorded scores count once, so that no text is on both sides of the held-out half.

    Raises:
        UserError: a file lacks a column, too few texts are left, or the scorer cannot be made.
    """
    recorded, num_without_reference = read_recorded(
        files, text_column=text_column, score_column=score_column, split_column=split_column
    )
    scorer = load_scorer()
    texts = [row.text for row in recorded]
    verdicts = _scored(scorer, texts)
    kept = [i for i, verdict in enumerate(verdicts) if verdict.status == "ok"]
    found = {
        "scorer": scorer.name,
        "scorer_version": scorer.version,
        "label": scorer.label,
        "against": sources(files, score_column),
        "bootstrap": bootstrap.model_dump(),
        "num_without_reference": num_without_reference,
        "num_not_scored": len(verdicts) - len(kept),
        **calibrate(
            [texts[i] for i in kept],
            np.array([verdicts[i].toxicity for i in kept]),
            np.array([recorded[i].score for i in kept]),
            bootstrap,
            splits=[recorded[i].split or "" for i in kept] if split_column else None,
        ),
    }
    path = Layout(root).reports / "calibration" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', scorer.name)}.json"
    write_json(path, found)
    draw(found, path.with_suffix(".svg"))
    return found, path


def sources(files: Sequence[Path], column: str) -> list[Json]:
    """What names the reference: file, sha256 and column."""
    return [
        {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "column": column} for file in files
    ]


def read_recorded(
    files: Sequence[Path], *, text_column: str, score_column: str, split_column: str | None = None
) -> tuple[list[Recorded], int]:
    """Distinct (text, score) pairs in order, and the number of rows without a text or without a score in 0..1.

    Raises:
        UserError: a column is missing, a score is none, or the parts are too many to tell apart.
    """
    pairs: dict[tuple[str, float], Recorded] = {}
    num_without = 0
    for file in files:
        rows = read_table(file)
        for option, column in (("text", text_column), ("score", score_column), ("split", split_column)):
            if column is not None:
                require(file, rows, [column], remedy=f"Name the column: --{option}-column <column>.")
        for number, row in enumerate(rows, 1):
            value, text = probability(file, number, score_column, row[score_column]), row[text_column]
            if value is not None and not (0 <= value <= 1 or value == -1):
                raise UserError(f"{file}: row {number}: {score_column}={value} is not between 0 and 1.")
            if value is None or value < 0 or not isinstance(text, str) or is_blank(text):
                num_without += 1
            else:
                part = None if split_column is None else _split_of(split_column, row)
                pairs.setdefault((text, value), Recorded(text, value, part))
    parts = {row.split for row in pairs.values()}
    if len(parts) > MAX_SPLITS:
        raise UserError(
            f"--split-column {split_column}: {len(parts)} different values; at most {MAX_SPLITS} are reported apart. "
            "Numbers from 0 to 1 are parted at .5."
        )
    return list(pairs.values()), num_without


def _split_of(column: str, row: Row) -> str:
    """The part a row belongs to: its value, numbers from 0 to 1 parted at .5 as the study's splits are."""
    value = row[column]
    try:
        is_score = value not in (0, 1, "0", "1") and 0 <= float(value) <= 1
    except (TypeError, ValueError):
        is_score = False
    return f"{column} {'>' if float(value) > 0.5 else '<='} .5" if is_score else f"{column}={value}"


def summary(found: Json) -> str:
    """The result in a few lines for the terminal."""

    def value(name: str, held: Json = found["held_out"]) -> str:
        measure = held[name]
        return "-" if measure is None else "{:.3f} [{:.3f}, {:.3f}]".format(measure["value"], *measure["ci95"])

    return "\n".join(
        [
            f"{found['scorer']} on {found['num_held_out']} held-out texts (fitted on {found['num_fitted']}; "
            f"{found['num_without_reference']} without a recorded score, {found['num_not_scored']} not scored)",
            f"  AUROC {value('auroc')}   average precision {value('average_precision')}   Spearman {value('spearman')}",
            f"  share toxic by the reference {value('reference_rate')}, by the scorer > .5 {value('rate_gt_50')}",
            f"  by the scorer > {found['threshold']:.3f} {value('rate_gt_threshold')}, "
            f"isotonic {value('rate_isotonic')}",
            *(
                f"  {name} ({part['num_texts']} texts): AUROC {value('auroc', part)}, by the reference "
                f"{value('reference_rate', part)}, > {found['threshold']:.3f} {value('rate_gt_threshold', part)}, "
                f"isotonic {value('rate_isotonic', part)}"
                for name, part in _parts(found)
            ),
        ]
    )


def _parts(found: Json) -> list[tuple[str, Json]]:
    """The splits, then the groups of length, named."""
    lengths = [("{} to {} words".format(*part["num_words"]), part) for part in found["by_length"]]
    return [*found["by_split"].items(), *lengths]


def draw(found: Json, path: Path) -> None:
    """The calibration curve on the held-out half and the isotonic map, as SVG without a date."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "detoxlens"}):
        figure, axes = plt.subplots(figsize=(4.5, 4))
        curve = found["curve"]
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        axes.plot(found["isotonic"]["score"], found["isotonic"]["prob"], label="isotonic map (fitted half)")
        axes.plot(curve["mean_score"], curve["share_toxic"], "o", label="held-out tenths")
        axes.set(xlabel=f"score of {found['scorer']}", ylabel="share with reference > .5", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)


def _scored(scorer: Scorer, texts: Sequence[str]) -> list[ScoredText]:
    verdicts: list[ScoredText] = []
    with progress(f"calibrate {scorer.name}", total=len(texts), unit="texts") as bar:
        for start in range(0, len(texts), BATCH):
            verdicts += scorer.score(texts[start : start + BATCH])
            bar.advance(len(texts[start : start + BATCH]))
    return verdicts
