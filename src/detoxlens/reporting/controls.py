"""The trust box's controls: what else than the training signal could give the differences, and how large they are.

Placebo, other seeds, other prompts, and the difference that this many prompts would have shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detoxlens.common.names import BASE, shown_name
from detoxlens.common.numbers import number
from detoxlens.evaluation.intervals import Estimate
from detoxlens.reporting.about import About
from detoxlens.reporting.between import between
from detoxlens.reporting.cells import estimate
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import difference, headline_scope, listed, points, sign

Json = Mapping[str, Any]
PASSED, FAILED, ABSENT, NOTE = "passed", "failed", "absent", "note"
MEASURE = "prompt_entropy_bits"
"""What placebos, prompts and methods are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Check(name="Gold test", status="failed", text="m/ft: ...")"""

    name: str
    status: str
    """passed | failed | absent | note"""
    text: str


def variants(metrics: Json) -> Iterator[tuple[str, str, Json]]:
    """(model/variant, key, numbers), those that are another variant's twin left out."""
    for model, variants in metrics.items():
        for variant, found in variants.items():
            if not found.get("identical_to"):
                yield f"{model}/{shown_name(variant)}", variant, found


def placebo(methods: Json, primary: str, about: About) -> Check:
    """Does training without the signal change as much?"""
    name, texts, shared = "Placebo", [], []
    everyone = ((of_model, *of) for model, of_model in methods.items() for of in variants({model: of_model}))
    for of_model, where, control, theirs in everyone:
        if not about.is_placebo(control):
            continue
        method = next((v for v in of_model if about.placebo(v, of_model) == control), None)
        parts = []
        for what, path, in_pair, said in _compared(headline_scope(theirs), primary):
            size, ours = value_at(theirs, *path), value_at(of_model, method or "", *path)
            if size is None:
                parts.append(f"{what} not measured")
                continue
            apart = between(of_model, method, control, *in_pair) if method else None
            parts.append(f"{what} {said(size)}" + (f" (`{method}` minus it {said(apart)})" if apart else ""))
            if sign(size) and sign(size) == sign(ours) and not sign(apart):
                shared.append(f"{what} of {where}")
        texts.append(f"{where}: {', '.join(parts)}")
    if not texts:
        text = (
            "None was trained: what any training does, without the signal, is not known. `detoxlens preset controls`."
        )
        return Check(name=name, status=ABSENT, text=text)
    verdict = (
        f"It changes as much as far as shown, {listed(shared)}: that much is not detoxification."
        if shared
        else "No effect of a method is shown to be its placebo's too."
    )
    return Check(name=name, status=FAILED if shared else PASSED, text=f"{verdict} {'; '.join(texts)}.")


def _compared(
    scope: str, primary: str
) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], Callable[[Json], str]]]:
    """(what, where it lies in an entry, where in a pair, how it is said)."""
    yield "toxicity", ("toxicity", primary, "delta_vs_it"), ("toxicity", primary, "rate_gt_50"), points
    for measure, what in ((MEASURE, "prompt entropy"), ("prompt_dependence_excess_bits", "dependence")):
        path = ("attribution", "effects", scope, measure, "model_effect")
        yield what, path, path, lambda found: difference(found, 3, " bits")


def seeds(metrics: Json, primary: str) -> Check:
    """How far do trainings with other seeds lie apart?"""
    texts = []
    for where, _, found in variants(metrics):
        if of_all := value_at(found, "method", "toxicity", primary, "rate_gt_50"):
            spread = f"SD {number(100 * of_all['sd_between_seeds'], 1)} points, mean {estimate(of_all, 1, scale=100)} %"
            texts.append(f"{where}: {len(found['method']['variants'])} seeds, {spread}")
    if not texts:
        text = "One training per method: whether another seed would do the same is not known."
        return Check(name="Seeds", status=ABSENT, text=text)
    text = f"{'; '.join(texts)} (toxic completions of {primary}; the intervals hold seeds and prompts)."
    return Check(name="Seeds", status=NOTE, text=text)


def power(metrics: Json, primary: str) -> Check:
    """The size of difference that this many prompts would have shown."""
    sizes = []
    for where, variant, found in variants(metrics):
        delta = found["toxicity"][primary]["delta_vs_it"]
        if variant != BASE and sign(delta) is not None:
            size = Estimate(delta["value"], tuple(delta["ci95"]), 0).detectable
            sizes.append((100 * size, f"{where}, n = {found['toxicity'][primary]['num_scored']}"))
    if not sizes:
        return Check(name="Power", status=ABSENT, text="No difference in toxicity was measured.")
    size, where = max(sizes)
    text = (
        f"On {primary} a difference of {number(size, 1)} points would have been found in 80 % of such runs ({where})."
    )
    return Check(name="Power", status=NOTE, text=text)


def elsewhere(metrics: Json, primary: str) -> Check:
    """Is the effect on the use of the prompt one on the primary split's prompts, or on others too?"""
    name, texts, reasons = "Other prompts", [], []
    for where, _, found in variants(metrics):
        for split, measures in (value_at(found, "attribution", "other_prompts") or {}).items():
            of = measures[MEASURE]
            if of["difference"] is None:
                reasons.append(f"{where} on {split}: {of['reason']}")
                continue
            both = " and ".join(
                f"{difference(of[part], 3, ' bits')} on {on}" for part, on in (("primary", primary), ("other", split))
            )
            shown = "" if sign(of["difference"]) else ", not shown to differ"
            texts.append(f"{where} {both}, difference {difference(of['difference'], 3, ' bits')}{shown}")
    if not texts:
        why = "; ".join(reasons[:2]) or (
            f"of the splits, `{primary}` alone was attributed (`attribution.filters`; `detoxlens preset controls` adds "
            "polite prompts)"
        )
        return Check(name=name, status=ABSENT, text=f"Not known whether the model effect is one on all prompts: {why}.")
    return Check(name=name, status=NOTE, text=f"Model effect on prompt entropy: {'; '.join([*texts, *reasons])}.")


def noise_floor(metrics: Json) -> Check:
    """How far are two base models apart of which neither is detoxified?"""
    name, texts = "Noise floor", []
    for model, of_model in metrics.items():
        found = value_at(of_model, BASE, "attribution", "noise_floor")
        if not found:
            continue
        apart = [
            f"{mention} Jensen–Shannon {estimate(js, 3)}, KL {estimate(of['divergence_from_it_bits']['kl'], 3)} bits"
            for mention, of in _readers(found)
            if (js := of["divergence_from_it_bits"]["jensen_shannon"])["value"] is not None
        ]
        if apart:
            texts.append(f"{model}: {'; '.join(apart)}")
    if not texts:
        text = (
            "Not known how differently two base models of different seeds would weigh the same text "
            "(`detoxlens noise-floor`, for an embedded model)."
        )
        return Check(name=name, status=ABSENT, text=text)
    text = "Divergence from base's attribution on base's text, first of a base model of another seed. "
    return Check(name=name, status=NOTE, text=f"{text}{'. '.join(texts)}.")


def _readers(found: Json) -> Iterator[tuple[str, Json]]:
    """(name, numbers), the other base model first."""
    yield f"base of {found['reader']}", found[found["reader"]]
    yield from ((variant, of) for variant, of in found.items() if variant not in ("reader", found["reader"]))
