"""The claims of Scalena et al. 2023 (arXiv 2309.00751), each with a verdict computed from this run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detoxlens.common.names import BASE
from detoxlens.common.numbers import number
from detoxlens.evaluation.multiplicity import holm
from detoxlens.evaluation.rise import FIRST, LATER
from detoxlens.reporting.about import About
from detoxlens.reporting.between import at_equal_toxicity, between
from detoxlens.reporting.by_method import named
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import (
    FEWEST,
    could_detect,
    difference,
    failed_checks,
    headline_scope,
    listed,
    points,
    sign,
)

Json = Mapping[str, Any]
HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "not shown", "not tested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the paper about one method: Claim(model="tiny", claim="...", verdict="holds", evidence="...")."""

    model: str
    claim: str
    verdict: str
    """holds | does not hold | not shown | not tested"""
    evidence: str


def claims(metrics: Json, *, primary: str, about: About) -> list[Claim]:
    """Per model the paper's claims, in its order; placebos are left out.

    Args:
        metrics: an entry per method, from `by_method`.
        primary: split on which toxicity is judged.
        about: which variants are fine-tuned and which trained by RL.
    """
    found = []
    for model, variants in metrics.items():
        names = [v for v in variants if v != BASE and not about.is_placebo(v) and about.kind(v)]
        for variant in names:
            claim = f"{named(variant, variants[variant])} detoxifies"
            found.append(Claim(model=model, claim=claim, **_detoxifies(variants[variant], primary)))
        studied = [v for v in names if about.kind(v) in ("sft", "rl")]  # the paper says nothing of other methods
        for variant in studied:
            is_sft = about.kind(variant) == "sft"
            uniform = "makes importance more uniform" if is_sft else "does not make importance more uniform"
            verdict = _uniform(variants[variant], wanted=is_sft)
            found.append(Claim(model=model, claim=f"{named(variant, variants[variant])} {uniform}", **verdict))
        for variant in [BASE, *studied]:
            wanted = about.kind(variant) != "sft"
            rises = "rises after the first tokens" if wanted else "does not rise after the first tokens"
            verdict = _rises(variants[variant], wanted=wanted)
            who = "base" if variant == BASE else named(variant, variants[variant])
            found.append(Claim(model=model, claim=f"Entropy of {who} {rises}", **verdict))
        kinds = {about.kind(v): v for v in reversed(names)}
        if {"sft", "rl"} <= set(kinds):
            verdict = _at_equal_toxicity(variants, kinds["sft"], kinds["rl"], primary)
            found.append(Claim(model=model, claim="The methods differ at equal toxicity", **verdict))
    return found


def _detoxifies(found: Json, primary: str) -> dict[str, str]:
    if found.get("identical_to"):
        return {"verdict": FAILS, "evidence": "it did not learn: its completions are base's"}
    toxicity = found["toxicity"][primary]
    delta = toxicity["delta_vs_it"]
    if delta is None or toxicity["num_scored"] < FEWEST:
        return {"verdict": UNTESTED, "evidence": f"{toxicity['num_scored']} scored completions, {FEWEST} needed"}
    evidence = f"{points(delta)} on {primary}, n = {toxicity['num_scored']}"
    return {"verdict": {-1: HOLDS, 1: FAILS}.get(sign(delta) or 0, OPEN), "evidence": evidence}


def _uniform(found: Json, *, wanted: bool) -> dict[str, str]:
    """Is the attribution over the prompt spread more evenly by the model itself, on the same text?"""
    if found.get("identical_to"):
        return {"verdict": UNTESTED, "evidence": "it did not learn"}
    effect = value_at(found, "attribution", "effects", headline_scope(found), "prompt_entropy_bits")
    change = value_at(effect, "model_effect")
    if change is None or effect["num_prompts"] < FEWEST:
        return {"verdict": UNTESTED, "evidence": value_at(effect, "reason") or "no attribution on the same text"}
    evidence = f"model effect on prompt entropy {difference(change, 3, ' bits')}, {effect['num_prompts']} prompts"
    if failed := failed_checks(found):
        evidence += f"; its attributions {failed}"
    which = sign(change)
    if which == 0:
        return {"verdict": OPEN, "evidence": f"{evidence}; {could_detect(change, 3, ' bits')}"}
    return {"verdict": HOLDS if (which == 1) == wanted else FAILS, "evidence": evidence}


ALPHA = 0.05
"""Below which an adjusted p is a difference."""
EQUAL = (
    ("prompt_entropy_bits", "prompt entropy", " bits", 3),
    ("prompt_dependence_excess_bits", "dependence beyond uniform", " bits", 3),
    ("jensen_shannon_bits", "Jensen–Shannon divergence from base", " bits", 3),
    ("perplexity", "perplexity", "", 2),
)
"""What methods are compared by at equal toxicity: measure, name, unit, digits."""


def _at_equal_toxicity(variants: Json, sft: str, rl: str, primary: str) -> dict[str, str]:
    """Where both are as toxic: do they read the same text differently, or write differently?"""
    if (half := at_equal_toxicity(variants, sft, rl, "50")) is not None:
        num = len(half["strengths"])
        trainings = "one training of each" if num == 2 else f"{num} trainings"
        return _verdict(half, f"adapters scaled to half of base's toxicity, {trainings}")
    strengths = "adapters of several strengths (run.interpolated_variants) would make it equal"
    toxicity = between(variants, sft, rl, "toxicity", primary, "rate_gt_50")
    if sign(toxicity) is None:
        return {"verdict": UNTESTED, "evidence": f"needs the two compared directly (report.pairs); {strengths}"}
    if sign(toxicity):
        return {"verdict": UNTESTED, "evidence": f"their toxicity differs ({points(toxicity)}); {strengths}"}
    equal = (
        f"toxicity {points(toxicity)}, no difference shown ({could_detect(toxicity, 1, ' points', scale=100)}); on "
        "base's text"
    )
    paths = {m: ("fluency", m) if m == "perplexity" else ("attribution", "on_base_text", m) for m, *_ in EQUAL}
    return _verdict({m: between(variants, sft, rl, *path) for m, path in paths.items()}, equal)


def _verdict(found: Json, where: str) -> dict[str, str]:
    """Holds where any of `EQUAL` differs by Holm's correction for all of them; which is said."""
    tested = {m: of for m, *_ in EQUAL if sign(of := found.get(m)) is not None and of["num_prompts"] >= FEWEST}
    if not tested:
        reasons = dict.fromkeys(of["reason"] for of in found.values() if of and of.get("reason"))
        why = next(iter(reasons), f"fewer than {FEWEST} prompts")
        return {"verdict": UNTESTED, "evidence": why}
    adjusted = holm({m: of["p_value"] for m, of in tested.items()})
    said: dict[bool, list[str]] = {True: [], False: []}
    for measure, name, unit, digits in EQUAL:
        if measure in tested:
            differs = adjusted[measure] < ALPHA
            more = "" if differs else f"; {could_detect(tested[measure], digits, unit)}"
            size = difference(tested[measure], digits, unit)
            p = "p < .001" if adjusted[measure] < 0.001 else f"p = {number(adjusted[measure], 3)}"
            said[differs].append(f"{name} ({size}, {p}{more})")
    parts = [
        f"{verdict} in {listed(names)}"
        for verdict, names in zip(("they differ", "not shown to"), said.values(), strict=True)
        if names
    ]
    evidence = f"{where}: {'; '.join(parts)}; p by Holm for {len(tested)} comparisons"
    return {"verdict": HOLDS if said[True] else OPEN, "evidence": evidence}


def _rises(found: Json, *, wanted: bool) -> dict[str, str]:
    """Is the entropy higher at later tokens than at the first ones of the same completion?"""
    rise = value_at(found, "attribution", "rise", headline_scope(found))
    level = value_at(rise, "level")
    if level is None or rise["num_prompts"] < FEWEST:
        return {"verdict": UNTESTED, "evidence": value_at(rise, "reason") or "too few completions that are long enough"}
    (first, last), (start, end) = FIRST, LATER
    evidence = (
        f"steps {start} to {end} minus steps {first} to {last} of its own completions {difference(level, 2, ' bits')}, "
        f"{rise['num_prompts']} prompts"
    )
    if effect := value_at(rise, "model_effect"):
        evidence += f"; on the same text, minus base {difference(effect, 2, ' bits')}"
    which = sign(level)
    if not which:
        return {"verdict": OPEN, "evidence": f"{evidence}; {could_detect(level, 2, ' bits')}"}
    return {"verdict": HOLDS if (which == 1) == wanted else FAILS, "evidence": evidence}
