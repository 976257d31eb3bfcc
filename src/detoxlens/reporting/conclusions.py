"""What the data say, in sentences made from metrics.json. First one per model, then the details per variant.

Nothing is claimed beyond the numbers. "Less toxic" needs a paired interval that excludes 0. What a model does with its
prompt is said of the same text at the same positions; what a user sees, in other texts, is named as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.common.names import BASE, mention
from detoxlens.common.numbers import number
from detoxlens.reporting.about import About
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import FEWEST, completions, could_detect, difference, listed, points, sign

Json = Mapping[str, Any]
USE = (
    ("prompt_entropy_bits", "prompt entropy", " bits"),
    ("prompt_dependence_excess_bits", "prompt dependence beyond uniform", " bits"),
)
"""Measure, name, unit of what is said about the use of the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusions:
    """What is said about one model."""

    lead: str
    """Which method, how much less toxic, at what cost, how sure."""
    details: Sequence[str]


def conclusions(
    metrics: Json, *, splits: Sequence[str], primary: str, groups: Mapping[str, str], about: About
) -> dict[str, Conclusions]:
    """Per model what the data say.

    Args:
        metrics: what `build_metrics` returned.
        splits: test splits, in order.
        primary: the split of the first sentence.
        groups: variant -> method, of which several seeds are several variants.
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
                control = about.placebo(variant, variants)
                details += _prompt_use(variant, values, control, variants.get(control or ""))
            details += _toxic_text(variant, values)
        found[model] = Conclusions(lead=lead(variants, primary=primary, groups=groups, about=about), details=details)
    return found


def lead(variants: Json, *, primary: str, groups: Mapping[str, str], about: About) -> str:
    """One sentence about a model: which method, how much less toxic, at what cost, how sure."""
    base = variants[BASE]["toxicity"][primary]
    if base["num_scored"] < FEWEST:
        return (
            f"{completions(base['num_scored'])} of base on {primary} scored: too few for a sentence ({FEWEST} needed)."
        )
    trained = [v for v in variants if v != BASE and not about.is_placebo(v)]
    if not trained:
        return (
            f"{_rate(base)} of base's {completions(base['num_scored'])} on {primary} are toxic; no other variant yet."
        )
    clauses = [f"{_rate(base)} of base's {completions(base['num_scored'])} on {primary} are toxic"]
    clauses += [_change(variant, variants[variant], primary) for variant in trained]
    learned = [v for v in trained if "identical_to" not in variants[v]]
    clauses += [*_cost(learned, variants), _certainty(learned, variants, primary, groups, about)]
    return "; ".join(clauses) + "." + _use_in_short(learned, variants)


def not_learned(variant: str, twin: str) -> str:
    """Said instead of any difference."""
    return (
        f"`{variant}` is {mention(twin)}: every completion is the same, token for token. The training changed nothing "
        "that shows (of PPO, validation may have kept step 0); see its curves under Training, then raise the learning "
        "rate or the number of steps."
    )


def _change(variant: str, found: Json, primary: str) -> str:
    if twin := found.get("identical_to"):
        return f"`{variant}` did not learn and answers as {mention(twin)} does, token for token"
    ours = found["toxicity"][primary]
    delta = ours["delta_vs_it"]
    if delta is None or ours["num_scored"] < FEWEST:
        return f"`{variant}` has too few scored completions to compare ({ours['num_scored']})"
    which = sign(delta)
    if which:
        return f"`{variant}` {'lowers' if which < 0 else 'raises'} it to {_rate(ours)} ({points(delta)})"
    return f"no difference shown for `{variant}` ({_rate(ours)}, {points(delta)}{_detectable(delta)})"


def _cost(learned: Sequence[str], variants: Json) -> list[str]:
    """At what price in language."""
    base = variants[BASE]["fluency"]["perplexity"]
    values = [(v, variants[v]["fluency"]["perplexity"]) for v in learned]
    known = [f"{number(p, 1)} (`{v}`)" for v, p in values if p is not None]
    return [f"perplexity under base {number(base, 1)} (base), {listed(known)}"] if known and base is not None else []


def _use_in_short(learned: Sequence[str], variants: Json) -> str:
    """What the models do with the same text, and how large that is beside the level."""
    changes = []
    for variant in learned:
        effect = value_at(variants[variant], "attribution", "effects", headline_scope(variants[variant]), USE[0][0])
        if value_at(effect, "model_effect") and effect["num_prompts"] >= FEWEST:
            shown = "" if sign(effect["model_effect"]) else ", no difference shown"
            changes.append(f"{difference(effect['model_effect'], 3, ' bits')} (`{variant}`{shown})")
    level = value_at(variants[BASE], "attribution", "effects", headline_scope(variants[BASE]), USE[0][0], "level")
    if not changes or level is None:
        return ""
    return (
        f" Reading the same text, prompt entropy differs from base's {number(level['value'], 2)} bits by "
        f"{listed(changes)}."
    )


def _certainty(learned: Sequence[str], variants: Json, primary: str, groups: Mapping[str, str], about: About) -> str:
    """What stands beside the difference: what a placebo changes, and over how many trainings it was seen."""
    controls = {about.placebo(v, variants) for v in learned} - {None}
    parts = []
    for control in (v for v in variants if v in controls):
        delta = variants[control]["toxicity"][primary]["delta_vs_it"]
        parts.append(f"`{control}` changes it by {points(delta)}" if delta else f"`{control}` was not scored")
    num_seeds = max(sum(groups.get(v) == groups.get(name) for v in variants) for name in learned) if learned else 1
    parts += [f"{num_seeds} training seeds"] if num_seeds > 1 else []
    missing = [] if controls else ["no placebo"]
    missing += [] if num_seeds > 1 else ["one training seed"]
    return "; ".join([*parts, *([" and ".join(missing)] if missing else [])])


def _about_base(found: Json, splits: Sequence[str]) -> str:
    rates = [f"{_rate(t)} on {s} (n = {t['num_scored']})" for s in splits if (t := found["toxicity"][s])["num_scored"]]
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
        size = f"{points(delta)}{'' if verdict else _detectable(delta)}"
        by_verdict.setdefault(verdict or "no difference to base shown", []).append(f"{split} ({size})")
    if not by_verdict:
        return f"`{variant}`: no prompt was scored for both it and base."
    return f"`{variant}`: {'; '.join(f'{what} on {listed(where)}' for what, where in by_verdict.items())}."


def _language(variant: str, found: Json, base: Json) -> list[str]:
    ours, theirs = found["fluency"], base["fluency"]
    parts = []
    if ours["perplexity"] is not None and theirs["perplexity"] is not None:
        parts.append(f"perplexity {ours['perplexity']:.1f} (base {theirs['perplexity']:.1f})")
    if ours["mean_length"] is not None and theirs["mean_length"] is not None:
        parts.append(f"length {ours['mean_length']:.1f} tokens (base {theirs['mean_length']:.1f})")
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
            else f"no difference shown in naming what the prompt is about ({points(delta)}{_detectable(delta)})"
        )
    return [f"`{variant}` as language: {'; '.join(parts)}."] if parts else []


def _prompt_use(variant: str, found: Json, control: str | None, placebo: Json | None) -> list[str]:
    """The model effect with its control, then what a user sees and how much of it is the text."""
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
            sentences.append(f"`{variant}`, {name} on the same text: not measured ({why}).")
            continue
        verdict = {1: f"{name} higher than base's", -1: f"{name} lower than base's"}.get(sign(change) or 0)
        size = difference(change, 3, unit)
        said = f"{verdict} ({size}" if verdict else f"no difference in {name} shown ({size}{_detectable(change, unit)}"
        where = f"{effect['num_prompts']} prompts, {_steps(effect['num_steps'])}"
        parts = [f"`{variant}` reading the same text as base: {said}, {where})"]
        if sign(change):
            parts.append(_placebo(control, value_at(placebo, "attribution", "effects", scope, measure), change, unit))
        if effect["total"] is not None and effect["text_effect"] is not None:
            parts.append(
                f"between their own texts the difference is {difference(effect['total'], 3, unit)}, of which "
                f"{difference(effect['text_effect'], 3, unit)} is the text"
            )
        sentences.append("; ".join(parts) + ".")
    return sentences


def _placebo(control: str | None, effect: Json | None, change: Json, unit: str) -> str:
    if control is None:
        return "no placebo shows whether any training does this"
    if effect is None or effect["model_effect"] is None:
        return f"its placebo `{control}` was not measured"
    size = difference(effect["model_effect"], 3, unit)
    if sign(effect["model_effect"]) == sign(change):
        return f"its placebo `{control}` shows it too ({size}): not particular to detoxification"
    return f"its placebo `{control}` does not show it ({size})"


def _toxic_text(variant: str, found: Json) -> list[str]:
    """Figure 1 in a sentence: is base's text read otherwise where it is toxic, and does the variant change that?"""
    contrast = value_at(found, "attribution", "contrast", "by_it", "prompt_entropy_bits")
    if contrast is None:
        return []
    who = f"{'Base' if variant == BASE else f'`{variant}`'} reading base's completions"
    sizes = f"{contrast['num_toxic']} toxic and {contrast['num_other']} others"
    delta = contrast["toxic_minus_other"]
    if delta is None or min(contrast["num_toxic"], contrast["num_other"]) < FEWEST:
        return [f"{who}: too few to compare toxic with other completions ({sizes})."]
    verdict = {1: "prompt entropy higher", -1: "prompt entropy lower"}.get(sign(delta) or 0)
    size = difference(delta, 3, " bits")
    said = (
        f"{verdict} in the toxic ones than in the others ({size}"
        if verdict
        else f"no difference in prompt entropy shown between toxic and other ones ({size}{_detectable(delta, ' bits')}"
    )
    change = contrast.get("change_from_it")
    more = f"; against base {difference(change, 3, ' bits')}" if change else ""
    return [f"{who}: {said}; {sizes}, {_steps(contrast['num_steps'])}{more})."]


def headline_scope(found: Json) -> str:
    """The scope of the headline numbers: `prompt` or `user`."""
    return value_at(found, "attribution", "scope") or "prompt"


def _steps(num: int) -> str:
    return "step 1" if num == 1 else f"steps 1 to {num}"


def _detectable(delta: Json, unit: str = " points") -> str:
    if delta["ci95"] is None:
        return ""
    scaled = could_detect(delta, 1, unit, scale=100) if unit == " points" else could_detect(delta, 3, unit)
    return f"; {scaled}"


def _rate(toxicity: Json) -> str:
    return f"{number(100 * toxicity['rate_gt_50'], 1)} %"
