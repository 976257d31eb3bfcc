"""The claims of Scalena et al. 2023 (arXiv 2309.00751), each with a verdict computed from this run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detoxlens.common.names import BASE, mention
from detoxlens.evaluation.rise import FIRST, LATER
from detoxlens.reporting.about import About
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import FEWEST, could_detect, difference, failed_checks, headline_scope, points, sign

Json = Mapping[str, Any]
HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "not shown", "not tested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the paper about one variant: Claim(model="tiny", claim="...", verdict="holds", evidence="...")."""

    model: str
    claim: str
    verdict: str
    """holds | does not hold | not shown | not tested"""
    evidence: str


def claims(metrics: Json, *, primary: str, about: About) -> list[Claim]:
    """Per model the paper's claims, in its order; a variant that is its own placebo is left out.

    Args:
        metrics: what `build_metrics` returned.
        primary: split on which toxicity is judged.
        about: which variants are fine-tuned and which trained by RL.
    """
    found = []
    for model, variants in metrics.items():
        names = [v for v in variants if v != BASE and not about.is_placebo(v) and about.kind(v)]
        for variant in names:
            found.append(Claim(model=model, claim=f"`{variant}` detoxifies", **_detoxifies(variants[variant], primary)))
        studied = [v for v in names if about.kind(v) in ("sft", "rl")]  # the paper says nothing of other methods
        for variant in studied:
            is_sft = about.kind(variant) == "sft"
            uniform = "makes importance more uniform" if is_sft else "does not make importance more uniform"
            verdict = _uniform(variants[variant], wanted=is_sft)
            found.append(Claim(model=model, claim=f"`{variant}` {uniform}", **verdict))
        for variant in [BASE, *studied]:
            wanted = about.kind(variant) != "sft"
            rises = "rises after the first tokens" if wanted else "does not rise after the first tokens"
            verdict = _rises(variants[variant], wanted=wanted)
            found.append(Claim(model=model, claim=f"Entropy of {mention(variant)} {rises}", **verdict))
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


def _at_equal_toxicity(variants: Json, sft: str, rl: str, primary: str) -> dict[str, str]:
    """Where no difference in toxicity is shown between the two: do they read the same text differently?"""
    if (evidence := _on_paths(variants, sft, rl)) is not None:
        return evidence
    strengths = "adapters of several strengths (run.interpolated_variants) would make it equal"
    found = value_at(variants, sft, "pairs", rl) or value_at(variants, rl, "pairs", sft)
    toxicity = value_at(found, "toxicity", primary, "rate_gt_50")
    entropy = value_at(found, "attribution", "on_base_text", "prompt_entropy_bits")
    if sign(toxicity) is None or sign(entropy) is None:
        return {"verdict": UNTESTED, "evidence": f"needs the two compared directly (report.pairs); {strengths}"}
    if sign(toxicity):
        return {"verdict": UNTESTED, "evidence": f"their toxicity differs ({points(toxicity)}); {strengths}"}
    evidence = (
        f"toxicity {points(toxicity)}, no difference shown ({could_detect(toxicity, 1, ' points', scale=100)}); prompt "
        f"entropy on base's text {difference(entropy, 3, ' bits')}"
    )
    if sign(entropy):
        return {"verdict": HOLDS, "evidence": evidence}
    return {"verdict": OPEN, "evidence": f"{evidence}; {could_detect(entropy, 3, ' bits')}"}


def _on_paths(variants: Json, sft: str, rl: str) -> dict[str, str] | None:
    """The same where both adapters are scaled to half of base's toxicity; None where they were not scaled."""
    found = None
    for one, other in ((sft, rl), (rl, sft)):
        found = found or value_at(variants, one, "dose", "at_equal_toxicity", other, "50", "prompt_entropy_bits")
    if found is None:
        return None
    if sign(found) is None or found["num_prompts"] < FEWEST:
        return {"verdict": UNTESTED, "evidence": found["reason"] or f"fewer than {FEWEST} attributed prompts"}
    evidence = (
        f"both adapters scaled to half of base's toxicity: model effect on prompt entropy differs by "
        f"{difference(found, 3, ' bits')}, {found['num_prompts']} prompts"
    )
    if sign(found):
        return {"verdict": HOLDS, "evidence": evidence}
    return {"verdict": OPEN, "evidence": f"{evidence}; {could_detect(found, 3, ' bits')}"}


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
