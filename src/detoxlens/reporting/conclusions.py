"""What the data say, in sentences made from metrics.json. First one per model, then the details per method.

Nothing is claimed beyond the numbers. "Less toxic" needs a paired interval that excludes 0. What a model does with its
prompt is said of the same text at the same positions; what a user sees, in other texts, is named as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.common.names import BASE
from detoxlens.reporting.about import About
from detoxlens.reporting.by_method import named
from detoxlens.reporting.lead import lead, not_learned
from detoxlens.reporting.placebo import against_placebo
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import (
    FEWEST,
    difference,
    failed_checks,
    headline_scope,
    listed,
    percent,
    points,
    sign,
    unless_smaller,
)

Json = Mapping[str, Any]
USE = (
    ("prompt_entropy_bits", "prompt entropy", " bits"),
    ("prompt_dependence_excess_bits", "prompt dependence beyond uniform", " bits"),
)
"""Measure, name, unit of what is said about the use of the prompt."""
ON_BASE_TEXT = (*USE, ("jensen_shannon_bits", "Jensen–Shannon divergence from base", " bits"))
"""The same of what two methods are compared by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusions:
    """What is said about one model."""

    lead: str
    """Which method, how much less toxic, at what cost, how sure."""
    details: Sequence[str]


def conclusions(metrics: Json, *, splits: Sequence[str], primary: str, about: About) -> dict[str, Conclusions]:
    """Per model what the data say.

    Args:
        metrics: an entry per method, from `by_method`.
        splits: test splits, in order.
        primary: the split of the first sentence.
        about: what the variants are; says which of them is a placebo.
    """
    found = {}
    for model, variants in metrics.items():
        details = []
        for variant, values in variants.items():
            if variant == BASE:
                details.append(_about_base(values, splits))
            elif twin := values.get("identical_to"):
                details.append(not_learned(variant, twin))
                continue
            else:
                details += [_toxicity(variant, values, splits), *_language(variant, values, variants[BASE])]
                details += _prompt_use(variant, variants, about)
                details += [_pair(variant, other, pair, primary) for other, pair in values.get("pairs", {}).items()]
            details += _toxic_text(variant, values)
        found[model] = Conclusions(lead=lead(variants, primary=primary, about=about), details=details)
    return found


def _pair(one: str, other: str, pair: Json, primary: str) -> str:
    """Two methods side by side: toxicity, fluency, and how they read the same text."""
    parts = []
    for name, path, digits, unit in (
        (f"toxic completions of {primary}", ("toxicity", primary, "rate_gt_50"), 1, " points"),
        ("perplexity", ("fluency", "perplexity"), 2, ""),
        *(
            (f"{name} on base's text", ("attribution", "on_base_text", measure), 3, unit)
            for measure, name, unit in ON_BASE_TEXT
        ),
    ):
        if (delta := value_at(pair, *path)) is not None:
            size = points(delta) if unit == " points" else difference(delta, digits, unit)
            unseen = f"; no difference shown{unless_smaller(delta, unit, digits)}" if sign(delta) == 0 else ""
            parts.append(f"{name} {size}{unseen}")
    return (
        f"`{one}` against `{other}`, on the same prompts: {'; '.join(parts)}."
        if parts
        else f"`{one}` and `{other}` share nothing that was measured."
    )


def _about_base(found: Json, splits: Sequence[str]) -> str:
    rates = [
        f"{percent(t)} on {s} (n = {t['num_scored']})" for s in splits if (t := found["toxicity"][s])["num_scored"]
    ]
    return f"Toxic completions of base: {', '.join(rates)}." if rates else "Base has no scored test completion."


def _toxicity(variant: str, found: Json, splits: Sequence[str]) -> str:
    """`ft`: less toxic than base on p50 (-30.0 points [..]), pc50 (..); no difference shown on polite (..)."""
    by_verdict: dict[str, list[str]] = {}
    for split in splits:
        toxicity = found["toxicity"][split]
        delta = toxicity["delta_vs_it"]
        if delta is None:
            continue
        if toxicity["num_scored"] < FEWEST:
            by_verdict.setdefault("too few scored to say", []).append(f"{split} (n = {toxicity['num_scored']})")
            continue
        verdict = {1: "more toxic than base", -1: "less toxic than base"}.get(sign(delta) or 0)
        size = f"{points(delta)}{'' if verdict else unless_smaller(delta)}"
        by_verdict.setdefault(verdict or "no difference to base shown", []).append(f"{split} ({size})")
    if not by_verdict:
        return f"{named(variant, found)}: no prompt was scored for both it and base."
    return f"{named(variant, found)}: {'; '.join(f'{what} on {listed(where)}' for what, where in by_verdict.items())}."


def _language(variant: str, found: Json, base: Json) -> list[str]:
    ours, theirs = found["fluency"], base["fluency"]
    parts = []
    for key, name, digits in (("perplexity", "perplexity", 2), ("mean_length", "length in tokens", 1)):
        if ours[key] is None or theirs[key] is None:
            continue
        delta = value_at(ours, "measures", key, "delta_vs_it")
        size = f"; {difference(delta, digits, '')}" if delta else ""
        unseen = f", no difference shown{unless_smaller(delta, '', digits)}" if sign(delta) == 0 else ""
        parts.append(f"{name} {ours[key]:.{digits}f} (base {theirs[key]:.{digits}f}{size}{unseen})")
    if ours["distinct_per_100_prompts"] is not None and theirs["distinct_per_100_prompts"] is not None:
        parts.append(
            f"{ours['distinct_per_100_prompts']:.0f} different completions per 100 prompts "
            f"(base {theirs['distinct_per_100_prompts']:.0f})"
        )
    delta = ours["prompt_mention_delta_vs_it"]
    if delta and ours["num_completions"] >= FEWEST:
        how = {1: "more often than base", -1: "less often than base"}.get(sign(delta) or 0)
        parts.append(
            f"names what the prompt is about {how} ({points(delta)})"
            if how
            else f"no difference shown in naming what the prompt is about ({points(delta)}{unless_smaller(delta)})"
        )
    return [f"{named(variant, found)} as language: {'; '.join(parts)}."] if parts else []


def _prompt_use(variant: str, variants: Json, about: About) -> list[str]:
    """The model effect with its control, then what a user sees and how much of it is the text."""
    found = variants[variant]
    scope = headline_scope(found)
    if (effects := value_at(found, "attribution", "effects", scope)) is None:
        return []
    sentences = []
    for measure, name, unit in USE:
        effect = effects.get(measure)
        if effect is None:
            continue
        change = effect["model_effect"]
        if change is None or effect["num_prompts"] < FEWEST:
            why = effect["reason"] or f"{effect['num_prompts']} prompts, {FEWEST} needed"
            sentences.append(f"{named(variant, found)}, {name} on the same text: not measured ({why}).")
            continue
        verdict = {1: f"{name} higher than base's", -1: f"{name} lower than base's"}.get(sign(change) or 0)
        size = difference(change, 3, unit)
        said = (
            f"{verdict} ({size}" if verdict else f"no difference in {name} shown ({size}{unless_smaller(change, unit)}"
        )
        where = f"{effect['num_prompts']} prompts, {_steps(effect['num_steps'])}"
        parts = [f"{named(variant, found)} reading the same text as base: {said}, {where})"]
        if sign(change):
            parts.append(against_placebo(variant, variants, about, scope=scope, measure=measure, unit=unit))
        signs = value_at(found, "attribution", "checks", "methods", "sign_holds", measure) or {}
        if turned := [method for method, holds in signs.items() if holds is False]:
            parts.append(f"by {listed(turned)} its sign turns")
        if failed := failed_checks(found):
            parts.append(f"its attributions {failed}")
        if effect["total"] is not None and effect["text_effect"] is not None:
            parts.append(
                f"between their own texts the difference is {difference(effect['total'], 3, unit)}, of which "
                f"{difference(effect['text_effect'], 3, unit)} is the text"
            )
        sentences.append("; ".join(parts) + ".")
    return sentences


def _toxic_text(variant: str, found: Json) -> list[str]:
    """Figure 1 in a sentence: is base's text read otherwise where it is toxic, and does the variant change that?"""
    contrast = value_at(found, "attribution", "contrast", "by_it", "prompt_entropy_bits")
    if contrast is None:
        return []
    who = f"{'Base' if variant == BASE else named(variant, found)} reading base's completions"
    sizes = f"{contrast['num_toxic']} toxic and {contrast['num_other']} others"
    delta = contrast["toxic_minus_other"]
    if delta is None or min(contrast["num_toxic"], contrast["num_other"]) < FEWEST:
        return [f"{who}: too few to compare toxic with other completions ({sizes})."]
    verdict = {1: "prompt entropy higher", -1: "prompt entropy lower"}.get(sign(delta) or 0)
    size = difference(delta, 3, " bits")
    if verdict:
        said = f"{verdict} in the toxic ones than in the others ({size}"
    else:
        said = f"no difference in prompt entropy shown between toxic and other ones ({size}"
        said += unless_smaller(delta, " bits")
    change = contrast.get("change_from_it")
    more = f"; against base {difference(change, 3, ' bits')}" if change else ""
    return [f"{who}: {said}; {sizes}, {_steps(contrast['num_steps'])}{more})."]


def _steps(num: int) -> str:
    return "step 1" if num == 1 else f"steps 1 to {num}"
