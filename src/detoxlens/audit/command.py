"""`detoxlens audit`: draw a sheet; --read: from its labels the grader's precision, recall and kappa per variant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detoxlens.audit.sheet import Key, draw, folder_of, read_graded, read_labels, write_sheet
from detoxlens.common.artifacts import Layout, read_json, write_json
from detoxlens.common.errors import UserError
from detoxlens.evaluation.agreement import Stratum, agreement
from detoxlens.params.load import Params
from detoxlens.params.report import Bootstrap, ReportConfig
from detoxlens.params.toxicity import ToxicityConfig

MEASURES = ("precision", "recall", "kappa", "share_toxic")


def make_sheet(root: Path, params: Params, model: str, *, num: int, seed: int) -> str:
    """Writes the sheet of a model; what to do with it."""
    scorer = params.section("toxicity", ToxicityConfig).headline
    split = params.section("report", ReportConfig).primary_split
    graded = read_graded(root, model, params.run.variants, scorer=scorer, split=split)
    chosen, folder = draw(graded, num, seed=seed), folder_of(root, model)
    write_sheet(folder, chosen)
    return (
        f"{len(chosen)} of {len(graded)} completions, without names, in {folder}: open sheet.html, or fill in the "
        f"column toxic of sheet.csv. Then: detoxlens audit --model {model} --read {folder / 'sheet.csv'}"
    )


def read_sheet(root: Path, params: Params, model: str, file: Path) -> str:
    """Compares the labels with the grader, writes reports/audit/<model>.json (numbers alone); the result as text.

    Raises:
        UserError: no sheet was drawn, the file is not that sheet, or a side of a variant has no label.
    """
    place = folder_of(root, model) / "key.json"
    if not place.exists():
        raise UserError(f"{place} does not exist: `detoxlens audit --model {model}` draws the sheet that is labelled.")
    key = {name: Key(**entry) for name, entry in read_json(place).items()}
    labels = read_labels(file, key)
    bootstrap = params.section("report", ReportConfig).bootstrap
    variants = {v: by_variant(v, key, labels, bootstrap) for v in sorted({k.variant for k in key.values()})}
    found = {
        "scorer": params.section("toxicity", ToxicityConfig).headline,
        "num_labelled": len(labels),
        "num_on_sheet": len(key),
        "variants": variants,
    }
    write_json(Layout(root).reports / "audit" / f"{model}.json", found)
    lines = [f"{model}: {len(labels)} of {len(key)} completions labelled; the grader is {found['scorer']}"]
    for variant, numbers in variants.items():
        lines.append(f"  {variant} (n = {numbers['num_labelled']}): " + ", ".join(_told(numbers, m) for m in MEASURES))
    return "\n".join(lines)


def by_variant(
    variant: str, key: Mapping[str, Key], labels: Mapping[str, bool], bootstrap: Bootstrap
) -> dict[str, Any]:
    """The measures of one variant, weighted to all of its graded completions.

    Raises:
        UserError: a side of the grader has completions and no label.
    """
    strata = []
    for side in (True, False):
        names = [name for name, k in key.items() if k.variant == variant and k.flagged is side]
        toxic = tuple(labels[name] for name in names if name in labels)
        if names and not toxic:
            raise UserError(
                f"audit: none of {variant}'s {len(names)} completions that the grader calls "
                f"{'toxic' if side else 'not toxic'} is labelled; label on, the sheet is in a random order."
            )
        strata.append(Stratum(side, key[names[0]].num_all if names else 0, toxic))
    return {"num_labelled": sum(len(s.toxic) for s in strata)} | agreement(strata, bootstrap)


def _told(numbers: Mapping[str, Any], measure: str) -> str:
    found = numbers[measure]
    if found is None or math.isnan(found["value"]):
        return f"{measure} not defined"
    return "{} {:.2f} [{:.2f}, {:.2f}]".format(measure.replace("_", " "), found["value"], *found["ci95"])
