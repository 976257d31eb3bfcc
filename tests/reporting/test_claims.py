"""Verdicts on the paper's claims."""

import dataclasses

import pytest

from detoxlens.reporting.claims import claims
from detoxlens.reporting.curves import CurvePoint
from tests.reporting.test_conclusions import ABOUT, compared, metrics_of, variant


def point(name: str, step: int, mean: float) -> CurvePoint:
    return CurvePoint(
        model="m",
        variant=name,
        text=name,
        scope="prompt",
        measure="prompt_entropy_bits",
        group="all",
        step=step,
        mean=mean,
        lo=mean - 0.1,
        hi=mean + 0.1,
        band_lo=mean - 0.2,
        band_hi=mean + 0.2,
        n=40,
        unit="bits",
    )


def verdicts(metrics, points=()):
    return {c.claim: c.verdict for c in claims(metrics, points, primary="p50", about=ABOUT)}


def test_each_claim_has_a_verdict_from_the_numbers():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2, 2.5), rl=variant("rl", 19, 2.5))
    assert verdicts(metrics) == {
        "`ft` detoxifies": "holds",
        "`rl` detoxifies": "not shown",
        "`ft` makes importance more uniform": "holds",
        "`rl` does not make importance more uniform": "does not hold",
        "Entropy of base rises after the first tokens": "not tested",
        "Entropy of `ft` does not rise after the first tokens": "not tested",
        "Entropy of `rl` rises after the first tokens": "not tested",
        "The methods differ at equal toxicity": "not tested",
    }


@pytest.mark.parametrize(("later", "base", "ft"), [(3.0, "holds", "does not hold"), (2.1, "not shown", "not shown")])
def test_a_rise_needs_intervals_that_lie_apart(later, base, ft):
    points = [point(name, step, mean) for name in ("it", "ft") for step, mean in ((1, 2.0), (5, later))]
    found = verdicts(metrics_of(it=variant("it", 20), ft=variant("ft", 2)), points)
    assert found["Entropy of base rises after the first tokens"] == base
    assert found["Entropy of `ft` does not rise after the first tokens"] == ft


def test_a_variant_that_did_not_learn_does_not_detoxify():
    it = variant("it", 20)
    found = {
        c.claim: c
        for c in claims(metrics_of(it=it, rl=dataclasses.replace(it, variant="rl")), [], primary="p50", about=ABOUT)
    }
    assert found["`rl` detoxifies"].verdict == "does not hold"
    assert found["`rl` detoxifies"].evidence == "it did not learn: its completions are base's"


@pytest.mark.parametrize(
    ("toxicity", "entropy", "verdict"),
    [
        ((-0.05, 0.05), (0.01, 0.03), "holds"),
        ((-0.05, 0.05), (-0.01, 0.03), "not shown"),
        ((-0.15, -0.05), (0.01, 0.03), "not tested"),  # their toxicity is not equal
    ],
)
def test_methods_are_compared_at_equal_toxicity_only(toxicity, entropy, verdict):
    between = [{"value": sum(ends) / 2, "ci95": list(ends)} for ends in (toxicity, entropy)]
    assert verdicts(compared(*between))["The methods differ at equal toxicity"] == verdict
