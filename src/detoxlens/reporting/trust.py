"""The trust box: each control and check of the run, whether it passed, failed or is absent, in a sentence.

A check that failed is reported as such; one that was not made says what would make it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.names import BASE
from detoxlens.reporting.about import About
from detoxlens.reporting.by_method import by_method
from detoxlens.reporting.cells import estimate
from detoxlens.reporting.controls import (
    ABSENT,
    FAILED,
    MEASURE,
    NOTE,
    PASSED,
    Check,
    elsewhere,
    noise_floor,
    placebo,
    power,
    seeds,
    variants,
)
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import FEWEST, difference, listed, sign

Json = Mapping[str, Any]


def trust(
    metrics: Json,
    *,
    primary: str,
    about: About,
    groups: Mapping[str, str],
) -> list[Check]:
    """The controls and checks, in the order in which a sceptic asks.

    Args:
        metrics: what `build_metrics` returned.
        primary: the split whose power is given.
        about: which variants are placebos, what training and evaluation share, which classifier has several roles.
        groups: variant -> method, of which several seeds are several variants.
    """
    methods = by_method(metrics, groups)
    return [
        placebo(methods, primary, about),
        seeds(methods, primary),
        elsewhere(methods, primary),
        noise_floor(metrics),
        power(methods, primary),
        _gold(metrics),
        _method_free(metrics),
        _deletion(metrics),
        _methods(methods),
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


def _gold(metrics: Json) -> Check:
    """Where a generated word is copied from the prompt, does the attribution find its cue?"""
    name, passed, failed, reasons = "Gold test", [], [], []
    for where, _, found in variants(metrics):
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
    for where, _, found in variants(metrics):
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
    for where, _, found in variants(metrics):
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
    """Do the signs of the headline differences hold under other methods of attribution?"""
    held, turned, silent = [], [], []
    for where, variant, found in variants(metrics):
        if variant == BASE:
            continue
        signs = value_at(found, "attribution", "checks", "methods", "sign_holds") or {}
        for measure, what in ((MEASURE, "entropy"), ("prompt_dependence_excess_bits", "dependence")):
            for method, holds in signs.get(measure, {}).items():
                (silent if holds is None else held if holds else turned).append(f"{what} of {where} by {method}")
    name = "Other methods"
    if not held and not turned:
        why = (
            f"no interval excludes 0 by both methods ({listed(silent)})" if silent else "`attribution.agreement` is off"
        )
        return Check(name=name, status=ABSENT, text=f"Not tested: {why}.")
    texts = [f"The sign of the model effect turns: {listed(turned)}."] if turned else []
    texts += [f"It holds for {listed(held)}."] if held else []
    texts += [f"Nothing shown by one of the two: {listed(silent)}."] if silent else []
    return Check(name=name, status=FAILED if turned else PASSED, text=" ".join(texts))


def _shuffled(metrics: Json) -> Check:
    """Do shuffled weights give other attributions?"""
    shown = []
    for where, _, found in variants(metrics):
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
