"""docs/methods.md: its table and its sentence with the numbers of reports/studies/methods."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detoxlens.common.names import BASE, shown_name
from detoxlens.reporting.by_method import num_seeds
from detoxlens.reporting.cells import PERCENT, POINTS, interval, plain, rate
from detoxlens.reporting.table import Column, Row, table
from detoxlens.reporting.wording import listed
from tests.controls_page import ENTROPY, MODEL, SPLIT, Json, Numbers

REGION = re.compile(r"(<!-- results: [^\n]* -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
HALF = 0.5
"""Of base's toxicity: a method that leaves more has failed."""


def written(page: str, metrics: Json, study: Json) -> str:
    """The page with its region filled."""
    of = Numbers(metrics[MODEL])
    return REGION.sub(lambda found: f"{found[1]}{_results(of, study)}\n{found[3]}", page)


def _results(of: Numbers, study: Json) -> str:
    columns = [
        Column("method", lambda row: row.key, is_name=True),
        Column("toxic, %", ("toxicity", SPLIT), rate),
        Column("minus base, points", ("toxicity", SPLIT, "delta_vs_it"), POINTS),
        *(
            Column(f"{split}: not answered, %", ("costs", "response_kind", split, "not_answered"), PERCENT)
            for split in ("civil", "lookalike")
        ),
        Column("reference, bits/token", ("costs", "utility", "bits_per_token"), interval(2)),
        Column("perplexity", ("fluency", "measures", "perplexity"), interval(2)),
        Column(
            "prompt entropy, user's text, bits",
            ("attribution", "effects", "user", ENTROPY, "model_effect"),
            interval(3, signed=True),
        ),
        Column("operations, × base", ("costs", "inference", "flops_ratio"), plain(2)),
    ]
    grid = table("", "", columns, list(_rows(of))).grid
    return f"{_setting(of, study)}\n\n{grid}\n\n{_halved(of)}"


def _rows(of: Numbers) -> Iterator[Row]:
    for method, found in of.methods.items():
        seeds = f", {n} seeds" if (n := num_seeds(found)) > 1 else ""
        name = shown_name(method)
        yield Row(model=MODEL, variant=method, found=found, key=f"`{name}`{seeds}" if method != BASE else name)


def _setting(of: Numbers, study: Json) -> str:
    machine, toxicity = study["machine"], of.methods[BASE]["toxicity"][SPLIT]
    minutes = f"{sum(study['wall_seconds']) / 60:.0f} minutes"
    return (
        f"On {MODEL}, split {SPLIT}, {toxicity['num_scored']} prompts, graded by `profanity_check`; {minutes} on "
        f"{machine['num_cores']} cores of an {machine['cpu']}, {study['note']} "
        "([report](../reports/studies/methods/report.md), `study.json` beside it). 95 % intervals: of one training "
        "over prompts, of several over seeds and prompts."
    )


def _halved(of: Numbers) -> str:
    """Which methods are at most half as toxic as base, and which failed."""
    base = of.methods[BASE]["toxicity"][SPLIT]["rate_gt_50"]
    share = {
        shown_name(method): found["toxicity"][SPLIT]["rate_gt_50"] / base
        for method, found in of.methods.items()
        if method != BASE
    }
    halved = [f"`{name}`" for name, left in share.items() if left <= HALF] or ["none"]
    failed = [f"`{name}` ({100 * left:.0f} %)" for name, left in share.items() if left > HALF]
    left_over = f"More than half of it is left by {listed(failed)}, which failed here." if failed else "None failed."
    return f"At most half as toxic as base: {listed(halved)}. {left_over}"
