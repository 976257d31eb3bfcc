"""Verdicts on the paper's claims."""

import dataclasses

import pytest

from detoxlens.reporting.about import Role
from detoxlens.reporting.claims import claims
from tests.reporting.test_conclusions import ABOUT, compared, metrics_of, variant


def verdicts(metrics):
    return {c.claim: c.verdict for c in claims(metrics, primary="p50", about=ABOUT)}


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


def test_of_a_method_that_is_not_the_papers_only_its_toxicity_is_a_claim():
    about = dataclasses.replace(ABOUT, variants=ABOUT.variants | {"steered": Role(kind="steering", text="")})
    found = claims(metrics_of(it=variant("it", 20), steered=variant("steered", 2)), primary="p50", about=about)
    assert [c.claim for c in found if "steered" in c.claim] == ["`steered` detoxifies"]


@pytest.mark.parametrize(
    ("level", "base", "ft"),
    [
        ((0.4, 0.6), "holds", "does not hold"),
        ((-0.1, 0.3), "not shown", "not shown"),
        ((-0.3, -0.1), "does not hold", "holds"),
    ],
)
def test_a_rise_is_an_interval_of_the_paired_difference_above_0(level, base, ft):
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    level = {"value": sum(level) / 2, "ci95": list(level)}
    for found in metrics["m"].values():
        found["attribution"]["rise"] = {"prompt": {"level": level, "num_prompts": 40, "reason": None}}
    assert verdicts(metrics)["Entropy of base rises after the first tokens"] == base
    assert verdicts(metrics)["Entropy of `ft` does not rise after the first tokens"] == ft
    for found in metrics["m"].values():
        found["attribution"]["rise"]["prompt"]["num_prompts"] = 29  # no sentence on fewer than 30
    assert verdicts(metrics)["Entropy of base rises after the first tokens"] == "not tested"


def test_a_variant_that_did_not_learn_does_not_detoxify():
    it = variant("it", 20)
    found = {
        c.claim: c
        for c in claims(metrics_of(it=it, rl=dataclasses.replace(it, variant="rl")), primary="p50", about=ABOUT)
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
