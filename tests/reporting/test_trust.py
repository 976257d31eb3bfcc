"""The trust box: what passed, failed, or is absent, each said plainly."""

import dataclasses

from detoxlens.reporting.trust import trust
from tests.reporting.test_conclusions import ABOUT, metrics_of, variant

LOW, HIGH = {"value": -0.5, "ci95": [-0.6, -0.4]}, {"value": 0.5, "ci95": [0.4, 0.6]}
NONE_SHOWN = {"value": 0.1, "ci95": [-0.1, 0.3]}


def boxes(metrics, about=ABOUT):
    return {c.name: c for c in trust(metrics, primary="p50", about=about, groups={})}


def test_what_was_not_made_is_absent_and_says_so():
    found = boxes(metrics_of(it=variant("it", 20), ft=variant("ft", 2)))
    names = ("Placebo", "Seeds", "Gold test", "Deletion", "Other methods", "Shuffled weights", "Overlap")
    assert {found[name].status for name in names} == {"absent"}
    assert "None was trained" in found["Placebo"].text


def test_power_is_the_difference_that_would_have_been_found():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    metrics["m"]["ft"]["toxicity"]["p50"]["delta_vs_it"] = {"value": -0.4, "ci95": [-0.5, -0.3]}
    assert "a difference of 14.3 points would have been found" in boxes(metrics)["Power"].text  # .1 * 2.80 / 1.96


def test_a_placebo_that_changes_something_fails():
    it, ft = variant("it", 20), variant("ft", 2)
    assert boxes(metrics_of(it=it, ft=ft, placebo=variant("placebo", 20)))["Placebo"].status == "passed"
    found = boxes(metrics_of(it=it, ft=ft, placebo=variant("placebo", 2)))["Placebo"]
    assert found.status == "failed" and "that much is not detoxification" in found.text


def test_checks_pass_only_where_none_fails_and_name_the_failures():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    mrr = {"cue": HIGH, "control": NONE_SHOWN, "difference": HIGH}
    passing = {
        "gold": {"saliency": {"mrr": mrr, "num_words": 50, "passes": True, "reason": None}},
        "method_free": {"correlation": HIGH, "num_sequences": 40, "reason": None},
        "deletion": [
            {
                "fraction": 0.2,
                "comprehensiveness": {"difference": HIGH, "passes": True},
                "sufficiency": {"difference": LOW, "passes": True},
            }
        ],
        "methods": {"sign_holds": {"prompt_entropy_bits": {"occlusion": True}}},
        "randomization": {"rank_correlation": NONE_SHOWN, "num_sequences": 8},
    }
    names = ("Gold test", "Method-free check", "Deletion", "Other methods", "Shuffled weights")
    for found in metrics["m"].values():
        found["attribution"]["checks"] = passing
    assert {boxes(metrics)[name].status for name in names} == {"passed"}
    metrics["m"]["ft"]["attribution"]["checks"] = {
        "gold": {"saliency": passing["gold"]["saliency"] | {"passes": False}},
        "method_free": passing["method_free"] | {"correlation": NONE_SHOWN},
        "deletion": [passing["deletion"][0] | {"sufficiency": {"difference": NONE_SHOWN, "passes": False}}],
        "methods": {"sign_holds": {"prompt_entropy_bits": {"occlusion": False}}},
        "randomization": {"rank_correlation": {"value": 0.9, "ci95": [0.8, 1.0]}, "num_sequences": 8},
    }
    found = boxes(metrics)
    assert {found[name].status for name in names} == {"failed"}
    assert all("m/ft" in found[name].text for name in names)
    assert "3 of 4 tests beat random tokens. Not shown to: m/ft, sufficiency at 0.2" in found["Deletion"].text


def test_seeds_give_their_spread():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    mean = {"value": 0.07, "ci95": [0.01, 0.2], "sd_between_seeds": 0.021}
    metrics["m"]["ft"]["method"] = {"variants": ["ft", "ft-1"], "toxicity": {"p50": {"rate_gt_50": mean}}}
    found = boxes(metrics)["Seeds"]
    assert found.status == "note" and "m/ft: 2 seeds, SD 2.1 points, mean 7.0 [1.0, 20.0] %" in found.text


def test_overlap_and_double_roles_are_reported():
    metrics = metrics_of(it=variant("it", 20))
    about = dataclasses.replace(
        ABOUT, overlap=(True, "test in val: 3."), roles=("`g` is selector and grader at once.",)
    )
    found = boxes(metrics, about)
    assert (found["Overlap"].status, found["Overlap"].text) == ("failed", "test in val: 3.")
    assert (found["Roles"].status, found["Roles"].text) == ("note", "`g` is selector and grader at once.")
    assert boxes(metrics)["Roles"].status == "passed"
