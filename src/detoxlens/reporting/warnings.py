"""What weakens the numbers of metrics.json: the report's warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.names import BASE, shown_name
from detoxlens.evaluation.toxicity import Missing
from detoxlens.reporting.study import Study
from detoxlens.reporting.wording import completions, points, sign

Json = Mapping[str, Any]
MOST_CUT = 0.01
"""Share of completions that were kept in part above which a warning says so."""
MIN_DISTINCT_PER_100 = 50
"""Fewer different completions per 100 prompts look like a canned answer."""


def warnings(metrics: Json, *, primary: str, missing: Missing = "exclude") -> list[str]:
    """What makes a number weaker than it looks.

    Args:
        metrics: what `build_metrics` returned.
        primary: the primary split.
        missing: what an unscored completion counts as there.
    """
    found = []
    for model, variants in metrics.items():
        for variant, values in variants.items():
            found += [
                f"{model}/{shown_name(variant)}: {text}"
                for text in _warnings(variant, values, variants[BASE], primary, missing)
            ]
    return found


def _warnings(variant: str, found: Json, it: Json, primary: str, missing: Missing) -> list[str]:
    texts = []
    excluded = missing == "exclude"
    for split, t in found["toxicity"].items():
        if t["num_failed"]:
            where = "in no rate" if excluded else "counted as not toxic"
            texts.append(f"{completions(t['num_failed'])} of {split} could not be scored: {where}.")
        if t["num_scored"] == 0 and (split != "val" or t["num_empty"] or t["num_failed"]):  # none need be imported
            texts.append(f"no completion of {split} was scored.")
        if t["num_empty"] > 0.05 * max(1, t["num_scored"]):
            where = "in no rate, silence is not" if excluded else "in every rate, silence is"
            texts.append(f"{completions(t['num_empty'])} of {split} empty: {where} counted as harmless.")
        delta = t["delta_vs_it"]
        if split != primary and delta and sign(delta) == 1:
            texts.append(f"more toxic than base on {split}: {points(delta)}.")
    for n, where in _left_out(found["toxicity"]).items():
        texts.append(f"fewer than {n} scored completions, so not in the worst of {n}: {', '.join(where)}.")
    fluency = found["fluency"]
    if (share := fluency.get("ended_by_next_turn") or 0) > MOST_CUT:
        texts.append(f"{100 * share:.0f} % of the completions ran on into the human's next turn and were cut there.")
    distinct = fluency["distinct_per_100_prompts"]
    if distinct is not None and distinct < MIN_DISTINCT_PER_100:
        texts.append(f"only {distinct:.0f} different completions per 100 prompts: close to a canned answer.")
    delta = fluency["prompt_mention_delta_vs_it"]
    if delta and sign(delta) == -1:
        texts.append(f"names what the prompt is about less often than base: {points(delta)}.")
    ours, theirs = fluency["perplexity"], it["fluency"]["perplexity"]
    if ours and theirs and ours > 2 * theirs:
        texts.append(f"perplexity {ours:.1f} is more than twice that of base ({theirs:.1f}): word salad?")
    attribution = found["attribution"]
    if attribution["num_sequences"] == 0:
        texts.append("no attribution of a test completion: the curves and the use of the prompt are missing.")
    skipped = {k: n for k, n in attribution["num_by_status"].items() if k != "ok" and n}
    if skipped:
        listed = ", ".join(f"{n} {status}" for status, n in skipped.items())
        texts.append(f"attributions without scores, in no mean: {listed}.")
    return texts


def _left_out(toxicity: Json) -> dict[str, list[str]]:
    """{"5": ["3 of 60 prompts of p50"]}: the largest n, and whose prompts have fewer; {} where all have n."""
    found: dict[str, list[str]] = {}
    for split, t in toxicity.items():
        for n, worst in list(t.get("worst_of", {}).items())[-1:]:
            if out := worst["num_left_out"]:
                found.setdefault(n, []).append(f"{out} of {out + worst['num_prompts']} prompts of {split}")
    return found


def truncated(study: Study) -> list[str]:
    """Completions of which a scorer read the beginning only."""
    found = []
    for model, variants in study.models.items():
        for variant, tables in variants.items():
            for scorer, scores in tables.scores.items():
                if study.calibration and scorer == study.calibration.name:
                    continue  # reads nothing itself
                if num := int(scores.column("truncated").sum()):
                    found.append(
                        f"{model}/{shown_name(variant)}: {scorer} read only the beginning of {completions(num)}."
                    )
    return found
