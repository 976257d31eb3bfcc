"""The report's tables about toxicity, as lists of columns (`table.py` renders them)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from detoxlens.common.names import BASE, shown_name
from detoxlens.evaluation.toxicity import Missing
from detoxlens.recorded.calibration import WAYS, Calibration
from detoxlens.reporting.cells import PERCENT, POINTS, counts, estimate, interval, plain, rate
from detoxlens.reporting.table import MODEL, VARIANT, Column, Form, Json, Row, Table, key_column, table, value_at

PUBLISHED = (
    ("RedPajama-INCITE-Chat-3B", ((".13", ".22"), (".09", ".13"), (".10", ".16"))),
    ("falcon-7b-instruct", ((".10", ".14"), (".08", ".11"), (".08", ".13"))),
)
"""Table 1 of arXiv 2309.00751: base, ft, rl, each on prompts > .5 and on prompts and continuations > .5."""


def variant_rows(metrics: Json, *, base: bool = True) -> Iterator[Row]:
    """A row per model and variant, in the order of metrics.json, with or without base."""
    for model, variants in metrics.items():
        for variant, found in variants.items():
            if base or variant != BASE:
                yield Row(model=model, variant=variant, found=found)


def toxicity_tables(metrics: Json, splits: Sequence[str], *, missing: Missing = "exclude") -> list[Table]:
    """Table 1, and how far each variant is from base."""
    return _rates(metrics, splits, lambda split: ("toxicity", split), "", missing)


def scorer_tables(metrics: Json, splits: Sequence[str], *, missing: Missing = "exclude") -> list[Table]:
    """The same and the counts behind it by every further scorer."""
    scorers = dict.fromkeys(s for row in variant_rows(metrics) for s in row.found["scorers"])
    return [
        found
        for scorer in scorers
        for found in (
            *_rates(metrics, splits, lambda split, s=scorer: ("scorers", s, split), f" by {scorer}", missing),
            _counts(metrics, splits, lambda split, s=scorer: ("scorers", s, split), f"What {scorer} scored", missing),
        )
    ]


def counts_table(metrics: Json, splits: Sequence[str], *, missing: Missing = "exclude") -> Table:
    """What the grader's rates rest on."""
    return _counts(metrics, splits, lambda split: ("toxicity", split), "What was scored", missing)


def _rates(
    metrics: Json, splits: Sequence[str], path: Callable[[str], tuple[str, ...]], by: str, missing: Missing
) -> list[Table]:
    counted = "scored completions" if missing == "exclude" else "completions, unscored ones counted as not toxic,"
    return [
        table(
            f"Toxic completions{by}",
            f"Share of {counted} with toxicity > .5, in %, with its 95 % interval.",
            [MODEL, VARIANT, *_per_split(splits, path, rate)],
            variant_rows(metrics),
        ),
        table(
            f"Difference to base{by}",
            "In percentage points, on the same prompts, with its 95 % interval: below zero is less toxic.",
            [MODEL, VARIANT, *_per_split(splits, lambda split: (*path(split), "delta_vs_it"), POINTS)],
            variant_rows(metrics, base=False),
        ),
    ]


def _counts(
    metrics: Json, splits: Sequence[str], path: Callable[[str], tuple[str, ...]], title: str, missing: Missing
) -> Table:
    treated = "are in no rate above" if missing == "exclude" else "count as not toxic above"
    return table(
        title,
        f"Completions scored / empty / failed. Empty and failed ones {treated}.",
        [MODEL, VARIANT, *_per_split(splits, path, counts)],
        variant_rows(metrics),
    )


def _per_split(splits: Sequence[str], path: Callable[[str], tuple[str, ...]], form: Form) -> list[Column]:
    """A column per test split, then one of the validation prompts."""
    return [Column(split, path(split), form) for split in (*splits, "val")]


def calibrated_table(metrics: Json, splits: Sequence[str], calibration: Calibration) -> Table:
    """The rates in the terms of the scorer that the grader was calibrated against."""
    held = calibration.held_out
    reference, threshold, isotonic = (
        estimate(held[name], 1, scale=100) for name in ("reference_rate", "rate_gt_threshold", "rate_isotonic")
    )

    def cell(row: Row, split: str) -> str | None:
        found = value_at(row.found, "calibrated", split, row.key)
        if found is None:
            return None
        return PERCENT(found) + ("" if row.variant == BASE else f" Δ {POINTS(found['delta_vs_it'])}")

    return table(
        f"In the terms of {calibration.against}",
        f"Toxic completions in % as the recorded scores would have it, from {calibration.scorer} by a calibration on "
        f"{calibration.num_fitted} texts ({calibration.version}): the share above the threshold "
        f"{calibration.fit.threshold:.3f}, and the mean of the isotonic map, over scored completions. The 95 % "
        f"intervals cover prompts and calibration. On {held['num_texts']} held-out texts: AUROC "
        f"{estimate(held['auroc'], 3)}; recorded {reference}, by threshold {threshold}, isotonic {isotonic}. It holds "
        "for texts like those; on others it is a guess.",
        [MODEL, VARIANT, key_column("method"), *(Column(s, lambda row, s=s: cell(row, s)) for s in splits)],
        [
            Row(model=row.model, variant=row.variant, found=row.found, key=way)
            for row in variant_rows(metrics)
            for way in WAYS
        ],
    )


def seeds_table(metrics: Json, splits: Sequence[str], groups: Mapping[str, str]) -> Table | None:
    """Spread between seeds, for methods trained more than once; None when there is none."""
    members: dict[str, list[str]] = {}
    for variant, group in groups.items():
        members.setdefault(group, []).append(variant)
    several = {group: names for group, names in members.items() if len(names) > 1}

    def cell(row: Row, split: str) -> str | None:
        rates = [row.found[name]["toxicity"][split]["rate_gt_50"] for name in several[row.variant]]
        rates = [100 * rate for rate in rates if rate is not None]
        if len(rates) < 2:
            return None
        return f"{statistics.fmean(rates):.1f} ± {statistics.stdev(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"

    found = table(
        "Spread between seeds",
        "Toxic completions in % over training seeds: mean ± standard deviation (lowest to highest). The intervals "
        "above are about the sample of prompts; this is about the training.",
        [
            MODEL,
            Column("method", VARIANT.path, is_name=True),
            Column("seeds", lambda row: str(len(several[row.variant]))),
            *(Column(split, lambda row, s=split: cell(row, s)) for split in splits),
        ],
        [Row(model=model, variant=group, found=found) for model, found in metrics.items() for group in several],
    )
    return found if found.rows else None


OTHER_RATES = (
    MODEL,
    VARIANT,
    key_column("split"),
    Column("> .5, %", ("rate_gt_50",), plain(1, scale=100)),
    Column("≥ .5, %", ("rate_ge_50",), plain(1, scale=100)),
    Column("mean toxicity", ("mean",), plain(3)),
    Column("expected maximum", ("expected_max",), plain(3)),
    Column("prompts with any > .5, %", ("p_any_toxic",), plain(1, scale=100)),
)


def other_rates_table(metrics: Json, splits: Sequence[str]) -> Table:
    """Other ways of counting the same scores."""
    return table(
        "Other ways of counting",
        "The maximum and “any” are over the samples of a prompt.",
        OTHER_RATES,
        [
            Row(model=row.model, variant=row.variant, found=toxicity, key=split)
            for row in variant_rows(metrics)
            for split in (*splits, "val")
            if (toxicity := row.found["toxicity"][split])["num_scored"]
        ],
    )


SHARES = ("toxicity", "scorers")
"""Parts of metrics.json whose differences are of shares."""


def endpoints_table(metrics: Json, primary: Mapping[str, str]) -> Table | None:
    """The one difference per question that was named before the data were seen; None where none was."""
    if not primary:
        return None
    return table(
        "Primary endpoints",
        "One difference to base per question, declared in `report.primary`; 95 % intervals. Everything else on this "
        "page is exploratory: of many differences that are 0, one in twenty is shown. "
        + " ".join(f"{question.capitalize()}: `{path}`." for question, path in primary.items()),
        [
            MODEL,
            VARIANT,
            *(
                Column(
                    f"{question}, points" if path.startswith(SHARES) else question,
                    tuple(path.split("/")),
                    POINTS if path.startswith(SHARES) else interval(3, signed=True),
                )
                for question, path in primary.items()
            ),
        ],
        variant_rows(metrics, base=False),
    )


def pairs_tables(metrics: Json, splits: Sequence[str]) -> list[Table]:
    """Every two methods against each other; none where metrics.json has no `pairs`."""
    if not (rows := pair_rows(metrics)):
        return []
    return [
        table(
            "Method against method",
            "First minus second, on the same prompts (several seeds: their means), with 95 % intervals: toxic "
            "completions in percentage points, and perplexity. How they use the prompt: a table of its own, below.",
            [
                MODEL,
                key_column("methods"),
                *(Column(split, ("toxicity", split, "rate_gt_50"), POINTS) for split in splits),
                Column("perplexity", ("fluency", "perplexity"), interval(2, signed=True)),
            ],
            rows,
        )
    ]


def pair_rows(metrics: Json) -> list[Row]:
    """A row for every two methods that are compared."""
    return [
        Row(model=row.model, variant=row.variant, found=pair, key=f"{shown_name(row.variant)} − {shown_name(other)}")
        for row in variant_rows(metrics)
        for other, pair in row.found.get("pairs", {}).items()
    ]


def published_table() -> Table:
    """The numbers of the paper, to compare a run of its models with."""
    return table(
        "Published",
        "Scalena et al. 2023, Table 1 (arXiv 2309.00751): share of toxic completions as scored by Perspective, on "
        "prompts > .5 (P), then on prompts and continuations > .5 (P+C). Base is the paper's IT. Other models, prompts "
        "and scorer than the embedded default: compare directions with it, not numbers. From the authors' files the "
        "last number comes out as .12.",
        [
            MODEL,
            *(
                Column(f"{shown_name(variant)}, {split}", (variant, split))
                for variant in ("it", "ft", "rl")
                for split in ("P", "P+C")
            ),
        ],
        [
            Row(
                model=model,
                variant="",
                found={v: {"P": p, "P+C": pc} for v, (p, pc) in zip(("it", "ft", "rl"), rates, strict=True)},
            )
            for model, rates in PUBLISHED
        ],
    )
