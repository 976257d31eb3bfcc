"""The first sentences about a model: which method, how much less toxic, at what cost, how sure.

Several seeds of a method are one clause, from the mean over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.names import BASE, mention
from detoxlens.common.numbers import number
from detoxlens.reporting.about import About
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


def lead(variants: Json, *, primary: str, groups: Mapping[str, str], about: About) -> str:
    """Which method, how much less toxic, at what cost, how sure; then how it reads the same text."""
    base = variants[BASE]["toxicity"][primary]
    if base["num_scored"] < FEWEST:
        return (
            f"{completions(base['num_scored'])} of base on {primary} scored: too few for a sentence ({FEWEST} needed)."
        )
    trained = {first: seeds for first, seeds in methods(variants, groups).items() if not about.is_placebo(first)}
    clauses = [f"{percent(base)} of base's {completions(base['num_scored'])} on {primary} are toxic"]
    if not trained:
        return f"{clauses[0]}; no other variant yet."
    clauses += [_change(first, seeds, variants[first], primary) for first, seeds in trained.items()]
    learned = {v: seeds for v, seeds in trained.items() if "identical_to" not in variants[v]}
    clauses += _between(learned, variants, primary, about)
    clauses += [*_cost(learned, variants), _certainty(learned, variants, primary, about)]
    return "; ".join(clauses) + "." + _use_in_short(learned, variants)


def methods(variants: Json, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """First variant of each method -> its variants, one per seed; without base."""
    by_group: dict[str, list[str]] = {}
    for variant in variants:
        if variant != BASE:
            by_group.setdefault(groups.get(variant, variant), []).append(variant)
    return {names[0]: names for names in by_group.values()}


def not_learned(variant: str, twin: str) -> str:
    """Said instead of any difference."""
    return (
        f"`{variant}` is {mention(twin)}: every completion is the same, token for token. The training changed nothing "
        "that shows (of PPO, validation may have kept step 0); see its curves under Training, then raise the learning "
        "rate or the number of steps."
    )


def _change(variant: str, seeds: Sequence[str], found: Json, primary: str) -> str:
    if twin := found.get("identical_to"):
        return f"`{variant}` did not learn and answers as {mention(twin)} does, token for token"
    ours, name = found["toxicity"][primary], f"`{variant}`"
    value, delta = ours["rate_gt_50"], ours["delta_vs_it"]
    if of_all := value_at(found, "method", "toxicity", primary, "rate_gt_50"):
        value, delta, name = of_all["value"], of_all["delta_vs_it"], f"`{variant}` ({len(seeds)} seeds)"
    if delta is None or ours["num_scored"] < FEWEST:
        return f"{name} has too few scored completions to compare ({ours['num_scored']})"
    rate, which = f"{number(100 * value, 1)} %", sign(delta)
    if which:
        return f"{name} {'lowers' if which < 0 else 'raises'} it to {rate} ({points(delta)})"
    return f"no difference shown for {name} ({rate}, {points(delta)}{unless_smaller(delta)})"


def _between(learned: Mapping[str, Sequence[str]], variants: Json, primary: str, about: About) -> list[str]:
    """Which method is the less toxic, from their direct comparison."""
    clauses = []
    for one in learned:
        for other, pair in variants[one].get("pairs", {}).items():
            delta = value_at(pair, "toxicity", primary, "rate_gt_50")
            if about.is_placebo(other) or sign(delta) is None:
                continue
            verdict = {-1: f"`{one}` less toxic than `{other}`", 1: f"`{other}` less toxic than `{one}`"}.get(
                sign(delta) or 0
            )
            size = f"{points(delta)}{'' if verdict else unless_smaller(delta)}"
            clauses.append(f"{verdict or f'no difference shown between `{one}` and `{other}`'} ({size})")
    return clauses


def _cost(learned: Mapping[str, Sequence[str]], variants: Json) -> list[str]:
    """At what price in language."""
    base = variants[BASE]["fluency"]["perplexity"]
    values = {
        v: value_at(variants[v], "method", "fluency", "perplexity", "value") or variants[v]["fluency"]["perplexity"]
        for v in learned
    }
    known = [f"{number(p, 1)} (`{v}`)" for v, p in values.items() if p is not None]
    return [f"perplexity under base {number(base, 1)} (base), {listed(known)}"] if known and base is not None else []


def _use_in_short(learned: Mapping[str, Sequence[str]], variants: Json) -> str:
    """What the models do with the same text, and how large that is beside the level."""
    changes = []
    for variant in learned:
        effect = value_at(variants[variant], "attribution", "effects", headline_scope(variants[variant]), ENTROPY)
        if value_at(effect, "model_effect") and effect["num_prompts"] >= FEWEST:
            shown = "" if sign(effect["model_effect"]) else ", no difference shown"
            doubt = f"; its attributions {failed}" if (failed := failed_checks(variants[variant])) else ""
            changes.append(f"{difference(effect['model_effect'], 3, ' bits')} (`{variant}`{shown}{doubt})")
    level = value_at(variants[BASE], "attribution", "effects", headline_scope(variants[BASE]), ENTROPY, "level")
    if not changes or level is None:
        return ""
    return (
        f" Reading the same text, prompt entropy differs from base's {number(level['value'], 2)} bits by "
        f"{listed(changes)}."
    )


def _certainty(learned: Mapping[str, Sequence[str]], variants: Json, primary: str, about: About) -> str:
    """What stands beside the difference: what a placebo changes, and over how many trainings it was seen."""
    controls = {about.placebo(v, variants) for v in learned} - {None}
    parts = []
    for control in (v for v in variants if v in controls):
        of_all = value_at(variants[control], "method", "toxicity", primary, "rate_gt_50", "delta_vs_it")
        delta = of_all or variants[control]["toxicity"][primary]["delta_vs_it"]
        parts.append(f"`{control}` changes it by {points(delta)}" if delta else f"`{control}` was not scored")
    num_seeds = max(map(len, learned.values()), default=1)
    parts += [f"{num_seeds} training seeds"] if num_seeds > 1 else []
    missing = [] if controls else ["no placebo"]
    missing += [] if num_seeds > 1 else ["one training seed"]
    return "; ".join([*parts, *([" and ".join(missing)] if missing else [])])
