"""What the data say, in sentences made from metrics.json: conclusions, and what weakens them.

Nothing is claimed beyond the numbers: "less toxic" needs a paired interval that excludes zero, and no difference shown
is said as such, which is not the same as no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.names import BASE, mention, shown_name
from detoxlens.common.numbers import number
from detoxlens.evaluation.toxicity import Missing
from detoxlens.reporting.study import Study

Json = Mapping[str, Any]
MIN_DISTINCT_PER_100 = 50
"""Fewer different completions per 100 prompts look like a canned answer."""


def conclusions(metrics: Json, *, splits: Sequence[str], min_group: int) -> dict[str, list[str]]:
    """Per model the sentences about its variants: toxicity on every split, what it cost, and the use of the prompt.

    Args:
        metrics: what `build_metrics` returned.
        splits: test splits, in order.
        min_group: a group of fewer completions than this is not compared.
    """
    found = {}
    for model, variants in metrics.items():
        it = variants[BASE]
        sentences = []
        for variant, values in variants.items():
            if variant == BASE:
                sentences.append(_about_it(it, splits))
            else:
                sentences += _toxicity(variant, values, splits) + _cost(variant, values, it)
            sentences.append(_prompt_use(variant, values, min_group))
        found[model] = sentences
    return found


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


def _about_it(found: Json, splits: Sequence[str]) -> str:
    rates = [f"{_rate(found['toxicity'][s])} on {s}" for s in splits if found["toxicity"][s]["rate_gt_50"] is not None]
    return f"Toxic completions of base: {', '.join(rates)}." if rates else "Base has no scored test completion."


def _toxicity(variant: str, found: Json, splits: Sequence[str]) -> list[str]:
    """`ft`: less toxic than base on p50 (-30.0 points [..]), pc50 (..); no difference shown on polite (..)."""
    splits_by: dict[str, list[str]] = {}
    for split in splits:
        delta = found["toxicity"][split]["delta_vs_it"]
        if delta is not None:
            direction = _direction(delta, "less toxic than base", "more toxic than base")
            splits_by.setdefault(direction or "no difference to base shown", []).append(f"{split} ({_points(delta)})")
    if not splits_by:
        return [f"`{variant}`: no prompt was scored for both it and base."]
    return [f"`{variant}`: {'; '.join(f'{what} on {_and(where)}' for what, where in splits_by.items())}."]


def _cost(variant: str, found: Json, it: Json) -> list[str]:
    ours, theirs = found["fluency"], it["fluency"]
    parts = []
    if ours["perplexity"] is not None and theirs["perplexity"] is not None:
        parts.append(f"perplexity {ours['perplexity']:.1f} (base {theirs['perplexity']:.1f})")
    if ours["distinct_per_100_prompts"] is not None and theirs["distinct_per_100_prompts"] is not None:
        parts.append(
            f"{ours['distinct_per_100_prompts']:.0f} different completions per 100 prompts "
            f"(base {theirs['distinct_per_100_prompts']:.0f})"
        )
    if delta := ours["prompt_mention_delta_vs_it"]:
        how = _direction(delta, "less often than base", "more often than base")
        parts.append(
            f"names what the prompt is about {how} ({_points(delta)})"
            if how
            else f"no difference shown in naming what the prompt is about ({_points(delta)})"
        )
    return [f"`{variant}` as language: {'; '.join(parts)}."] if parts else []


def _prompt_use(variant: str, found: Json, min_group: int) -> str:
    clauses = []
    for measure, name, unit in (
        ("prompt_entropy_bits", "prompt entropy", " bits"),
        ("prompt_dependence", "prompt dependence", ""),
    ):
        delta = found["attribution"][measure]["delta_vs_it"]
        if delta is not None:
            how = _direction(delta, f"{name} lower than that of base", f"{name} higher than that of base")
            clauses.append(f"{how or f'no difference in {name} shown'} ({_change(delta, unit)})")
    return f"{mention(variant)} and its prompt: {'; '.join([*clauses, _groups(found, min_group)])}."


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _groups(found: Json, min_group: int) -> str:
    """Figure 1 in a clause: is the prompt used otherwise when the answer is toxic?"""
    groups = found["attribution"]["groups"]
    delta = groups["toxic_minus_other"]["prompt_entropy_bits"]
    num_toxic, num_other = groups["toxic"]["num_sequences"], groups["other"]["num_sequences"]
    if delta is None or min(num_toxic, num_other) < min_group:
        return f"too few to compare toxic with other completions ({num_toxic} and {num_other} with attributions)"
    how = _direction(delta, "lower", "higher")
    sizes = f"{num_toxic} and {num_other} completions, {_change(delta, ' bits')}"
    if how:
        return f"entropy {how} in its toxic completions than in its others ({sizes})"
    return f"no difference in entropy between its toxic completions and its others shown ({sizes})"


def _warnings(variant: str, found: Json, it: Json, primary: str, missing: Missing) -> list[str]:
    texts = []
    excluded = missing == "exclude"
    for split, t in found["toxicity"].items():
        if t["num_failed"]:
            where = "in no rate" if excluded else "counted as not toxic"
            texts.append(f"{_completions(t['num_failed'])} of {split} could not be scored: {where}.")
        if t["num_scored"] == 0 and (split != "val" or t["num_empty"] or t["num_failed"]):  # none need be imported
            texts.append(f"no completion of {split} was scored.")
        if t["num_empty"] > 0.05 * max(1, t["num_scored"]):
            where = "in no rate, silence is not" if excluded else "in every rate, silence is"
            texts.append(f"{_completions(t['num_empty'])} of {split} empty: {where} counted as harmless.")
        delta = t["delta_vs_it"]
        if split != primary and delta and _direction(delta, "less", "more") == "more":
            texts.append(f"more toxic than base on {split}: {_points(delta)}.")
    for n, where in _left_out(found["toxicity"]).items():
        texts.append(f"fewer than {n} scored completions, so not in the worst of {n}: {', '.join(where)}.")
    fluency = found["fluency"]
    distinct = fluency["distinct_per_100_prompts"]
    if distinct is not None and distinct < MIN_DISTINCT_PER_100:
        texts.append(f"only {distinct:.0f} different completions per 100 prompts: close to a canned answer.")
    delta = fluency["prompt_mention_delta_vs_it"]
    if delta and _direction(delta, "less", "more") == "less":
        texts.append(f"names what the prompt is about less often than base: {_points(delta)}.")
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
                if num := sum(score.truncated for score in scores):
                    found.append(
                        f"{model}/{shown_name(variant)}: {scorer} read only the beginning of {_completions(num)}."
                    )
    return found


def _completions(num: int) -> str:
    return f"{num} completion{'' if num == 1 else 's'}"


def _direction(delta: Json, below: str, above: str) -> str | None:
    """`below` or `above` when the interval lies on one side of zero."""
    if delta["ci95"] is None:
        return None
    lo, hi = delta["ci95"]
    return below if hi < 0 else above if lo > 0 else None


def _rate(toxicity: Json) -> str:
    return "nothing scored" if toxicity["rate_gt_50"] is None else f"{number(100 * toxicity['rate_gt_50'], 1)} %"


def _points(delta: Json) -> str:
    return _scaled(delta, 100, 1, " points")


def _change(delta: Json, unit: str) -> str:
    return _scaled(delta, 1, 3, unit)


def _scaled(delta: Json, scale: float, digits: int, unit: str) -> str:
    text = f"{number(scale * delta['value'], digits, signed=True)}{unit}"
    if delta["ci95"] is None:
        return f"{text}, one prompt, no interval"
    lo, hi = (number(scale * end, digits, signed=True) for end in delta["ci95"])
    return f"{text} [{lo}, {hi}]"
