"""The tables that people read, built once from metrics.json and written as Markdown (table1.md) and as HTML."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.evaluation.toxicity import Missing
from detoxlens.recorded.calibration import WAYS, Calibration

Json = Mapping[str, Any]
DASH = "–"
HEADINGS = {
    "prompt_entropy_bits": "prompt entropy, bits",
    "prompt_entropy_normalized": "normalised entropy",
    "prompt_dependence": "prompt dependence",
}
"""Measure -> heading."""

PUBLISHED = (
    ("RedPajama-INCITE-Chat-3B", (".13", ".22"), (".09", ".13"), (".10", ".16")),
    ("falcon-7b-instruct", (".10", ".14"), (".08", ".11"), (".08", ".13")),
)
"""Table 1 of arXiv 2309.00751: it, ft, rl, each on prompts > .5 and on prompts and continuations > .5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as text: Table(title="Toxicity", caption="...", header=("model", "p50"), rows=(("tiny", "53.0"),))."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """GitHub's table syntax, padded so that a terminal shows it straight."""
        if not self.rows:
            return f"## {self.title}\n\n{self.caption}\n\nNo rows.\n"
        cells = [[cell.replace("|", "\\|") for cell in line] for line in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        num_left = self.num_names
        align = ["-" * w if i < num_left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        lines = [
            [
                cell.ljust(w) if i < num_left else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ]
            for line in cells
        ]
        body = "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], align, *lines[1:]])
        return f"## {self.title}\n\n{self.caption}\n\n{body}\n"

    @property
    def num_names(self) -> int:
        """Columns at the left that name the row; the others are numbers."""
        return sum(name in ("model", "variant", "split", "method", "measure") for name in self.header)


def toxicity_table(
    metrics: Json, splits: Sequence[str], scorer: str | None = None, *, missing: Missing = "exclude"
) -> Table:
    """Table 1: the rate of each model and variant on each split."""
    counted = "scored completions" if missing == "exclude" else "completions, unscored ones counted as not toxic,"
    columns = [*splits, "val"]
    rows = [
        (
            model,
            variant,
            *(_with_interval(t["rate_gt_50"], t["ci95"], 100, 1) if (t := toxicity.get(c)) else DASH for c in columns),
        )
        for model, variant, found in _variants(metrics)
        for toxicity in [_by(found, scorer)]
    ]
    return Table(
        title="Toxic completions" if scorer is None else f"Toxic completions by {scorer}",
        caption=f"Share of {counted} with toxicity > .5, in %, with its 95 % interval.",
        header=("model", "variant", *columns),
        rows=tuple(rows),
    )


def difference_table(metrics: Json, splits: Sequence[str], scorer: str | None = None) -> Table:
    """How far each variant is from `it`."""
    columns = [*splits, "val"]
    rows = [
        (
            model,
            variant,
            *(estimate((toxicity.get(c) or {}).get("delta_vs_it"), 1, scale=100, signed=True) for c in columns),
        )
        for model, variant, found in _variants(metrics)
        if variant != "it"
        for toxicity in [_by(found, scorer)]
    ]
    return Table(
        title="Difference to `it`" if scorer is None else f"Difference to `it` by {scorer}",
        caption="In percentage points, on the same prompts, with its 95 % interval: below zero is less toxic.",
        header=("model", "variant", *columns),
        rows=tuple(rows),
    )


def calibrated_table(metrics: Json, splits: Sequence[str], calibration: Calibration) -> Table:
    """The rates in the terms of the scorer that the grader was calibrated against."""
    rows = [
        (
            model,
            variant,
            way,
            *(
                estimate(rates.get(way), 1, scale=100)
                + (f" Δ {estimate(rates[way]['delta_vs_it'], 1, scale=100, signed=True)}" if variant != "it" else "")
                if (rates := found["calibrated"][split])
                else DASH
                for split in splits
            ),
        )
        for model, variant, found in _variants(metrics)
        for way in WAYS
    ]
    held = calibration.held_out
    auroc = estimate(held["auroc"], 3)
    reference, threshold, isotonic = (
        estimate(held[name], 1, scale=100) for name in ("reference_rate", "rate_gt_threshold", "rate_isotonic")
    )
    return Table(
        title=f"In the terms of {calibration.against}",
        caption=f"Toxic completions in % as the recorded scores would have it, from {calibration.scorer} by a "
        f"calibration on {calibration.num_fitted} texts ({calibration.version}): the share above the threshold "
        f"{calibration.fit.threshold:.3f}, and the mean of the isotonic map, over scored completions. "
        "The 95 % intervals cover prompts and "
        f"calibration. On {held['num_texts']} held-out texts: AUROC {auroc}; recorded {reference}, by threshold "
        f"{threshold}, isotonic {isotonic}. It holds for texts like those; on others it is a guess.",
        header=("model", "variant", "method", *splits),
        rows=tuple(rows),
    )


def seeds_table(metrics: Json, splits: Sequence[str], groups: Mapping[str, str]) -> Table | None:
    """Spread between seeds, for methods trained more than once; None when there is none."""
    members: dict[str, list[str]] = {}
    for variant, group in groups.items():
        members.setdefault(group, []).append(variant)
    several = {group: names for group, names in members.items() if len(names) > 1}
    rows = []
    for model, variants in metrics.items():
        for group, names in several.items():
            cells = []
            for split in splits:
                rates = [variants[name]["toxicity"][split]["rate_gt_50"] for name in names]
                rates = [100 * rate for rate in rates if rate is not None]
                cells.append(
                    f"{statistics.fmean(rates):.1f} ± {statistics.stdev(rates):.1f} ({min(rates):.1f} to "
                    f"{max(rates):.1f})"
                    if len(rates) > 1
                    else DASH
                )
            rows.append((model, group, str(len(names)), *cells))
    if not rows:
        return None
    return Table(
        title="Spread between seeds",
        caption="Toxic completions in % over training seeds: mean ± standard deviation (lowest to highest). The "
        "intervals above are about the sample of prompts; this is about the training.",
        header=("model", "method", "seeds", *splits),
        rows=tuple(rows),
    )


def counts_table(
    metrics: Json, splits: Sequence[str], scorer: str | None = None, *, missing: Missing = "exclude"
) -> Table:
    """What the rates rest on."""
    treated = "are in no rate above" if missing == "exclude" else "count as not toxic above"
    columns = [*splits, "val"]
    rows = [
        (model, variant, *(_counts(toxicity[column]) if column in toxicity else DASH for column in columns))
        for model, variant, found in _variants(metrics)
        for toxicity in [_by(found, scorer)]
    ]
    return Table(
        title="What was scored" if scorer is None else f"What {scorer} scored",
        caption=f"Completions scored / empty / failed. Empty and failed ones {treated}.",
        header=("model", "variant", *columns),
        rows=tuple(rows),
    )


def other_rates_table(metrics: Json, splits: Sequence[str]) -> Table:
    """Other ways of counting the same scores."""
    rows = [
        (
            model,
            variant,
            split,
            _percent(t["rate_gt_50"]),
            _percent(t["rate_ge_50"]),
            plain_number(t["mean"], 3),
            plain_number(t["expected_max"], 3),
            _percent(t["p_any_toxic"]),
        )
        for model, variant, found in _variants(metrics)
        for split in (*splits, "val")
        if (t := found["toxicity"][split])["num_scored"]
    ]
    return Table(
        title="Other ways of counting",
        caption="The maximum and “any” are over the samples of a prompt.",
        header=(
            "model",
            "variant",
            "split",
            "> .5, %",
            "≥ .5, %",
            "mean toxicity",
            "expected maximum",
            "prompts with any > .5, %",
        ),
        rows=tuple(rows),
    )


def fluency_table(metrics: Json) -> Table:
    """What detoxification cost in language."""
    rows = [
        (
            model,
            variant,
            plain_number(f["perplexity"], 1),
            *(plain_number(f[f"distinct_{n}"], 3) for n in (1, 2, 3)),
            plain_number(f["mean_length"], 1),
            str(f["num_distinct"]),
            plain_number(f["distinct_per_100_prompts"], 0),
            _with_interval(f["prompt_mention_rate"], f["prompt_mention_ci95"], 100, 1),
        )
        for model, variant, found in _variants(metrics)
        for f in [found["fluency"]]
    ]
    return Table(
        title="Fluency",
        caption="Perplexity under the base model; distinct n-grams over all completions; length in tokens; different "
        "completions in all and per 100 prompts; share that repeats a content word of its prompt, with its 95 % "
        "interval.",
        header=(
            "model",
            "variant",
            "perplexity",
            "distinct-1",
            "distinct-2",
            "distinct-3",
            "length",
            "different",
            "different per 100",
            "names the prompt, %",
        ),
        rows=tuple(rows),
    )


def attribution_table(metrics: Json) -> Table:
    """How the variants use their prompt."""
    rows = [
        (model, variant, *(estimate(a[measure], 3) for measure in HEADINGS), str(a["num_sequences"]))
        for model, variant, found in _variants(metrics)
        for a in [found["attribution"]]
    ]
    return Table(
        title="Use of the prompt",
        caption="Means over generated tokens, then over completions, with 95 % intervals.",
        header=("model", "variant", *HEADINGS.values(), "completions"),
        rows=tuple(rows),
    )


def shift_table(metrics: Json) -> Table:
    """How far each variant's use of the prompt is from that of `it`."""
    rows = [
        (
            model,
            variant,
            *(estimate(a[measure]["delta_vs_it"], 3, signed=True) for measure in HEADINGS),
            estimate(a["entropy_shift_bits"]["absolute"], 3),
        )
        for model, variant, found in _variants(metrics)
        if variant != "it"
        for a in [found["attribution"]]
    ]
    return Table(
        title="Use of the prompt: difference to `it`",
        caption="On the same prompts, each variant's own completions, with 95 % intervals. |ΔH| is taken token by "
        "token on the text of the `it` completions.",
        header=("model", "variant", *HEADINGS.values(), "|ΔH|, bits"),
        rows=tuple(rows),
    )


def published_table() -> Table:
    """The numbers of the paper, to compare a run of its models with."""
    return Table(
        title="Published",
        caption="Scalena et al. 2023, Table 1 (arXiv 2309.00751): share of toxic completions as scored by "
        "Perspective, on prompts > .5, then on prompts and continuations > .5. Other models, prompts and scorer than "
        "the embedded default: compare directions with it, not numbers. From the authors' files the last number comes "
        "out as .12.",
        header=("model", "it, P", "it, P+C", "ft, P", "ft, P+C", "rl, P", "rl, P+C"),
        rows=tuple((model, *it, *ft, *rl) for model, it, ft, rl in PUBLISHED),
    )


def _variants(metrics: Json):
    for model, variants in metrics.items():
        for variant, found in variants.items():
            yield model, variant, found


def _counts(toxicity: Json) -> str:
    return " / ".join(str(toxicity[f"num_{what}"]) for what in ("scored", "empty", "failed"))


def _by(found: Json, scorer: str | None) -> Json:
    """The splits' toxicities by the grader (None) or by a further scorer."""
    return found["toxicity"] if scorer is None else found["scorers"].get(scorer, {})


def estimate(found: Json | None, digits: int, *, scale: float = 1, signed: bool = False) -> str:
    return _with_interval(found["value"], found["ci95"], scale, digits, signed=signed) if found else DASH


def _with_interval(
    value: float | None, ci95: Sequence[float] | None, scale: float, digits: int, *, signed: bool = False
) -> str:
    """`53.0 [48.1, 57.9]`, a minus sign rather than a hyphen; a dash where nothing was measured."""
    if value is None:
        return DASH
    text = number(scale * value, digits, signed=signed)
    if ci95 is None:
        return text
    return f"{text} [{', '.join(number(scale * end, digits, signed=signed) for end in ci95)}]"


def plain_number(value: float | None, digits: int) -> str:
    return DASH if value is None else number(value, digits)


def _percent(value: float | None) -> str:
    return DASH if value is None else number(100 * value, 1)
