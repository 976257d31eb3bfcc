"""The first sentences about a model: which method, how much less toxic, at what cost, how sure.

Of entries per method (`by_method`): several seeds are one clause, with the mean over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.names import BASE, mention
from detoxlens.common.numbers import number
from detoxlens.reporting.about import About
from detoxlens.reporting.by_method import named, num_seeds
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import (
    FEWEST,
    completions,
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
ENTROPY = "prompt_entropy_bits"


def lead(variants: Json, *, primary: str, about: About) -> str:
    """Which method, how much less toxic, at what cost, how sure; then how it reads the same text.

    Args:
        variants: of one model, from `by_method`.
        primary: the split that is spoken of.
        about: which variants are placebos.
    """
    base = variants[BASE]["toxicity"][primary]
    if base["num_scored"] < FEWEST:
        return (
            f"{completions(base['num_scored'])} of base on {primary} scored: too few for a sentence ({FEWEST} needed)."
        )
    trained = {v: found for v, found in variants.items() if v != BASE and not about.is_placebo(v)}
    clauses = [f"{percent(base)} of base's {completions(base['num_scored'])} on {primary} are toxic"]
    if not trained:
        return f"{clauses[0]}; no other variant yet."
    clauses += [_change(variant, found, primary) for variant, found in trained.items()]
    learned = {v: found for v, found in trained.items() if "identical_to" not in found}
    clauses += _between(learned, primary, about)
    clauses += [*_cost(learned, variants[BASE]), _certainty(learned, variants, primary, about)]
    return "; ".join(clauses) + "." + _use_in_short(learned, variants[BASE])


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
    ours, name = found["toxicity"][primary], named(variant, found)
    value, delta = ours["rate_gt_50"], ours["delta_vs_it"]
    if delta is None or ours["num_scored"] < FEWEST:
        return f"{name} has too few scored completions to compare ({ours['num_scored']})"
    rate, which = f"{number(100 * value, 1)} %", sign(delta)
    if which:
        return f"{name} {'lowers' if which < 0 else 'raises'} it to {rate} ({points(delta)})"
    return f"no difference shown for {name} ({rate}, {points(delta)}{unless_smaller(delta)})"


def _between(learned: Json, primary: str, about: About) -> list[str]:
    """Which method is the less toxic, from their direct comparison."""
    clauses = []
    for one in learned:
        for other, pair in learned[one].get("pairs", {}).items():
            delta = value_at(pair, "toxicity", primary, "rate_gt_50")
            if about.is_placebo(other) or sign(delta) is None:
                continue
            verdict = {-1: f"`{one}` less toxic than `{other}`", 1: f"`{other}` less toxic than `{one}`"}.get(
                sign(delta) or 0
            )
            size = f"{points(delta)}{'' if verdict else unless_smaller(delta)}"
            clauses.append(f"{verdict or f'no difference shown between `{one}` and `{other}`'} ({size})")
    return clauses


def _cost(learned: Json, of_base: Json) -> list[str]:
    """At what price in language."""
    base = of_base["fluency"]["perplexity"]
    values = {v: found["fluency"]["perplexity"] for v, found in learned.items()}
    known = [f"{number(p, 1)} (`{v}`)" for v, p in values.items() if p is not None]
    return [f"perplexity under base {number(base, 1)} (base), {listed(known)}"] if known and base is not None else []


def _use_in_short(learned: Json, base: Json) -> str:
    """What the models do with the same text, and how large that is beside the level."""
    changes = []
    for variant, found in learned.items():
        effect = value_at(found, "attribution", "effects", headline_scope(found), ENTROPY)
        if value_at(effect, "model_effect") and effect["num_prompts"] >= FEWEST:
            shown = "" if sign(effect["model_effect"]) else ", no difference shown"
            doubt = f"; its attributions {failed}" if (failed := failed_checks(found)) else ""
            changes.append(f"{difference(effect['model_effect'], 3, ' bits')} (`{variant}`{shown}{doubt})")
    level = value_at(base, "attribution", "effects", headline_scope(base), ENTROPY, "level")
    if not changes or level is None:
        return ""
    return (
        f" Reading the same text, prompt entropy differs from base's {number(level['value'], 2)} bits by "
        f"{listed(changes)}."
    )


def _certainty(learned: Json, variants: Json, primary: str, about: About) -> str:
    """What stands beside the difference: what a placebo changes, and over how many trainings it was seen."""
    controls = {about.placebo(v, variants) for v in learned} - {None}
    parts = []
    for control in (v for v in variants if v in controls):
        delta = variants[control]["toxicity"][primary]["delta_vs_it"]
        parts.append(f"`{control}` changes it by {points(delta)}" if delta else f"`{control}` was not scored")
    most = max(map(num_seeds, learned.values()), default=1)
    parts += [f"{most} training seeds"] if most > 1 else []
    missing = [] if controls else ["no placebo"]
    missing += [] if most > 1 else ["one training seed"]
    return "; ".join([*parts, *([" and ".join(missing)] if missing else [])])
