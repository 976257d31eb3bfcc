"""Verdicts on the paper's claims."""

import dataclasses

import pytest

from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.multiplicity import p_value
from detoxlens.reporting.about import Role
from detoxlens.reporting.by_method import by_method
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
    found = compared(*(estimate(ends) for ends in (toxicity, entropy)))
    assert verdicts(found)["The methods differ at equal toxicity"] == verdict


def estimate(ends):
    middle = sum(ends) / 2
    p = p_value(Estimate(middle, tuple(ends), 40))
    return {"value": middle, "ci95": list(ends), "num_prompts": 40, "p_value": p}


def test_the_direction_of_a_comparison_is_that_of_the_claim_however_it_is_stored():
    metrics = compared(estimate((-0.05, 0.05)), estimate((0.01, 0.03)))
    rl_first = metrics["m"]["ft"].pop("pairs")["rl"]
    metrics["m"]["rl"]["pairs"] = {"ft": rl_first}
    (found,) = [c for c in claims(metrics, primary="p50", about=ABOUT) if c.claim.startswith("The methods differ")]
    assert "prompt entropy (−0.020 bits [−0.030, −0.010]" in found.evidence


def test_of_a_method_with_several_seeds_the_verdict_is_about_all_of_them():
    """ft-1 alone is less toxic by 45 points; ft is not; the two together are as far as two trainings tell."""
    variants = {"it": variant("it", 20), "ft": variant("ft", 20), "ft-1": variant("ft-1", 2)}
    groups = {"it": "it", "ft": "ft", "ft-1": "ft"}
    variants["ft-1"] = dataclasses.replace(variants["ft-1"], group="ft")
    found = claims(by_method(metrics_of(**variants), groups), primary="p50", about=ABOUT)
    detoxifies = [c for c in found if "detoxifies" in c.claim]
    assert [(c.claim, c.verdict) for c in detoxifies] == [("`ft` (2 seeds) detoxifies", "not shown")]
    assert detoxifies[0].evidence.startswith("−22.5 points [")
    assert not any("ft-1" in c.claim for c in found)
