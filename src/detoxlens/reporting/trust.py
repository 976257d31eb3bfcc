"""The trust box: each control and check of the run, whether it passed, failed or is absent, in a sentence.

A check that failed is reported as such; one that was not made says what would make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detoxlens.common.names import BASE, shown_name
from detoxlens.common.numbers import number
from detoxlens.evaluation.intervals import Estimate
from detoxlens.reporting.about import About
from detoxlens.reporting.cells import estimate
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import FEWEST, difference, headline_scope, listed, points, sign

Json = Mapping[str, Any]
PASSED, FAILED, ABSENT, NOTE = "passed", "failed", "absent", "note"
MEASURE = "prompt_entropy_bits"
"""What methods are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Check(name="Gold test", status="failed", text="m/ft: ...")"""

    name: str
    status: str
    """passed | failed | absent | note"""
    text: str


def trust(
    metrics: Json,
    *,
    primary: str,
    about: About,
) -> list[Check]:
    """The controls and checks, in the order in which a sceptic asks.

    Args:
        metrics: what `build_metrics` returned.
        primary: the split whose power is given.
        about: which variants are placebos, what training and evaluation share, which classifier has several roles.
    """
    return [
        _placebo(metrics, primary, about),
        _seeds(metrics, primary),
        _power(metrics, primary),
        _gold(metrics),
        _method_free(metrics),
        _deletion(metrics),
        _methods(metrics),
        _shuffled(metrics),
        _overlap(about),
        _roles(about),
    ]


def _overlap(about: About) -> Check:
    if about.overlap is None:
        return Check(name="Overlap", status=ABSENT, text="No summary of the data says what training has seen.")
    found, text = about.overlap
    return Check(name="Overlap", status=FAILED if found else PASSED, text=text)


def _roles(about: About) -> Check:
    if not about.variants:
        return Check(name="Roles", status=ABSENT, text="Not known which classifiers trained and selected.")
    text = " ".join(about.roles) or "No classifier that trained or selected a variant grades it."
    return Check(name="Roles", status=NOTE if about.roles else PASSED, text=text)


def _variants(metrics: Json) -> Iterator[tuple[str, str, Json]]:
    """(model/variant, key, numbers), those that are another variant's twin left out."""
    for model, variants in metrics.items():
        for variant, found in variants.items():
            if not found.get("identical_to"):
                yield f"{model}/{shown_name(variant)}", variant, found


def _placebo(metrics: Json, primary: str, about: About) -> Check:
    """Does training without the signal change anything?"""
    name, texts, failed = "Placebo", [], False
    for where, variant, found in _variants(metrics):
        if about.is_placebo(variant):
            toxicity = found["toxicity"][primary]["delta_vs_it"]
            use = value_at(found, "attribution", "effects", headline_scope(found), MEASURE, "model_effect")
            failed |= bool(sign(toxicity) or sign(use))
            entropy = f"prompt entropy {difference(use, 3, ' bits')}" if use else "prompt entropy not measured"
            texts.append(f"{where}: {points(toxicity) if toxicity else 'not scored'}, {entropy}")
    if not texts:
        text = (
            "None was trained: what any training does, without the signal, is not known. `detoxlens preset controls`."
        )
        return Check(name=name, status=ABSENT, text=text)
    verdict = "It changes something too: that much is not detoxification." if failed else "It changes nothing shown."
    return Check(name=name, status=FAILED if failed else PASSED, text=f"{verdict} {'; '.join(texts)}.")


def _seeds(metrics: Json, primary: str) -> Check:
    """How far do trainings with other seeds lie apart?"""
    texts = []
    for where, _, found in _variants(metrics):
        if of_all := value_at(found, "method", "toxicity", primary, "rate_gt_50"):
            spread = f"SD {number(100 * of_all['sd_between_seeds'], 1)} points, mean {estimate(of_all, 1, scale=100)} %"
            texts.append(f"{where}: {len(found['method']['variants'])} seeds, {spread}")
    if not texts:
        text = "One training per method: whether another seed would do the same is not known."
        return Check(name="Seeds", status=ABSENT, text=text)
    text = f"{'; '.join(texts)} (toxic completions of {primary}; the intervals hold seeds and prompts)."
    return Check(name="Seeds", status=NOTE, text=text)


def _power(metrics: Json, primary: str) -> Check:
    """The size of difference that this many prompts would have shown."""
    sizes = []
    for where, variant, found in _variants(metrics):
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


def _gold(metrics: Json) -> Check:
    """Where a generated word is copied from the prompt, does the attribution find its cue?"""
    name, passed, failed, reasons = "Gold test", [], [], []
    for where, _, found in _variants(metrics):
        for method, of in (value_at(found, "attribution", "checks", "gold") or {}).items():
            if of["passes"] is None:
                reasons.append(f"{where} by {method}: {of['reason']}")
                continue
            cue, control = (value_at(of, "mrr", which) for which in ("cue", "control"))
            (passed if of["passes"] else failed).append((cue["value"], f"{where} by {method}", cue, control))
    if not passed and not failed:
        return Check(name=name, status=ABSENT, text=f"Not tested: {'; '.join(reasons[:2]) or 'no attributions'}.")
    texts = [_ranked(one, "Fails for") for one in failed]
    if passed:
        count = f"{len(passed)} of {len(passed) + len(failed)} (models, variants, methods)"
        texts.append(f"Passes for {count}; {_ranked(min(passed), 'weakest:')}")
    texts += [f"Not tested: {len(reasons)} ({reasons[0]})."] if reasons else []
    what = "Where a generated word is copied from the prompt, its cue there is known."
    return Check(name=name, status=FAILED if failed else PASSED, text=" ".join([what, *texts]))


def _ranked(one: tuple[float, str, Json, Json], how: str) -> str:
    _, where, cue, control = one
    return f"{how} {where}, mean reciprocal rank {estimate(cue, 2)}, a matched other word {estimate(control, 2)}."


def _deletion(metrics: Json) -> Check:
    """Do the tokens with the most attribution matter more than random ones?"""
    passed, failed = [], []
    for where, _, found in _variants(metrics):
        for of in value_at(found, "attribution", "checks", "deletion") or ():
            for name in ("comprehensiveness", "sufficiency"):
                passes = value_at(of, name, "passes")
                size = value_at(of, name, "difference")
                at = f"{where}, {name} at {of['fraction']:g}"
                if passes is False:
                    failed.append(f"{at} ({difference(size, 2, ' nats') if size else 'no number'})")
                elif passes:
                    passed.append(at)
    name = "Deletion"
    if not passed and not failed:
        return Check(name=name, status=ABSENT, text="Not tested: `attribution.faithfulness` is off.")
    text = f"{len(passed)} of {len(passed) + len(failed)} tests beat random tokens."
    if failed:
        text += f" Not shown to: {'; '.join(failed)}."
    return Check(name=name, status=FAILED if failed else PASSED, text=text)


def _method_free(metrics: Json) -> Check:
    """Does attribution agree with how much the predictions depend on the user's text?"""
    shown, bad, reasons = [], [], []
    for where, _, found in _variants(metrics):
        of = value_at(found, "attribution", "checks", "method_free")
        correlation = value_at(of, "correlation")
        if sign(correlation) is None or of["num_sequences"] < FEWEST:
            reasons.append(f"{where}: {value_at(of, 'reason') or 'not measured'}")
            continue
        (shown if sign(correlation) == 1 else bad).append(f"{where} {estimate(correlation, 2)}")
    name = "Method-free check"
    if not shown and not bad:
        return Check(name=name, status=ABSENT, text=f"Not tested: {'; '.join(reasons[:2]) or 'no attributions'}.")
    text = "Rank correlation, within steps, of dependence with how far the user's text moves the predictions (KL): "
    text += "; ".join([*(f"{where} (not above 0)" for where in bad), *shown]) + "."
    return Check(name=name, status=FAILED if bad else PASSED, text=text)


def _methods(metrics: Json) -> Check:
    """Does the sign of the headline difference hold under other methods of attribution?"""
    held, turned, silent = [], [], []
    for where, variant, found in _variants(metrics):
        if variant == BASE:
            continue
        for method, holds in (value_at(found, "attribution", "checks", "methods", "sign_holds", MEASURE) or {}).items():
            (silent if holds is None else held if holds else turned).append(f"{where} by {method}")
    name = "Other methods"
    if not held and not turned:
        why = (
            f"no interval excludes 0 by both methods ({listed(silent)})" if silent else "`attribution.agreement` is off"
        )
        return Check(name=name, status=ABSENT, text=f"Not tested: {why}.")
    texts = [f"The sign of the model effect on entropy turns: {listed(turned)}."] if turned else []
    texts += [f"It holds for {listed(held)}."] if held else []
    texts += [f"Nothing shown by one of the two: {listed(silent)}."] if silent else []
    return Check(name=name, status=FAILED if turned else PASSED, text=" ".join(texts))


def _shuffled(metrics: Json) -> Check:
    """Do shuffled weights give other attributions?"""
    shown = []
    for where, _, found in _variants(metrics):
        of = value_at(found, "attribution", "checks", "randomization", "rank_correlation")
        if isinstance(of, Mapping) and of.get("value") is not None:
            shown.append((abs(of["value"]), f"{where} {estimate(of, 2)}"))
    if not shown:
        return Check(name="Shuffled weights", status=ABSENT, text="Not tested: `attribution.faithfulness` is off.")
    worst, where = max(shown)
    text = f"Rank correlation with the attributions of the same network with shuffled weights, largest: {where}."
    return Check(name="Shuffled weights", status=PASSED if worst < SIMILAR else FAILED, text=text)


SIMILAR = 0.5
"""Rank correlation from which attributions of a shuffled network count as the same as the trained one's."""
