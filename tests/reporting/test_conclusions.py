"""What is said, and what is not: sentences on made-up tables and on numbers set by hand."""

import dataclasses

import pytest

from detoxlens.reporting.about import About, Role
from detoxlens.reporting.by_method import by_method
from detoxlens.reporting.conclusions import conclusions
from detoxlens.reporting.metrics import build_metrics
from tests.reporting.test_curves import CONFIG, study, tables, trace

PROMPTS = [f"p{i}" for i in range(40)]
ABOUT = About(
    variants={
        "it": Role(kind="base", text=""),
        "ft": Role(kind="sft", text=""),
        "rl": Role(kind="rl", text=""),
        "placebo": Role(kind="sft", text="", placebo_of="ft"),
    }
)


def variant(name: str, toxic: int, bits: float = 2.0):
    """40 prompts, the first `toxic` of which were answered toxically; every text is read with `bits` of entropy."""
    toxicity = {p: 0.9 if i < toxic else 0.1 for i, p in enumerate(PROMPTS)}
    cells = {(name, name): bits, (name, "it"): bits, ("it", name): 2.0}
    traces = [
        trace(p, [level + 0.01 * (i % 7)], reader, text)
        for (reader, text), level in cells.items()
        for i, p in enumerate(PROMPTS)
    ]
    return tables(name, traces, toxicity)


def spread(found, by: float):
    """The same means, with an effect that differs from prompt to prompt: by `by` in turn to either side."""
    traces = []
    for t in found.traces:
        shift = by * (-1) ** int(t.key[0][1:]) if t.reader == found.variant else 0
        values = {scope: {name: of + shift for name, of in measures.items()} for scope, measures in t.values.items()}
        traces.append(dataclasses.replace(t, values=values))
    return dataclasses.replace(found, traces=traces)


def metrics_of(**variants):
    return build_metrics(study(**variants), CONFIG, missing="exclude")


def said(metrics, about: About = ABOUT, groups=None):
    return conclusions(by_method(metrics, groups or {}), splits=["p50"], primary="p50", about=about)["m"]


def sentences(**variants) -> str:
    return "\n".join(said(metrics_of(**variants)).details)


def test_less_toxic_needs_an_interval_below_zero():
    assert "`ft`: less toxic than base on p50 (−45.0 points [" in sentences(it=variant("it", 20), ft=variant("ft", 2))
    assert "`ft`: more toxic than base on p50 (+45.0 points [" in sentences(it=variant("it", 2), ft=variant("ft", 20))
    assert "`ft`: no difference to base shown on p50" in sentences(it=variant("it", 20), ft=variant("ft", 19))


def test_no_difference_shown_is_followed_by_what_could_have_been_detected():
    # Half the interval's width is 1.96 standard errors; 80 % power needs 1.96 + .84: .1 * 2.80 / 1.96 = 14.3 points.
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 19))
    metrics["m"]["ft"]["toxicity"]["p50"]["delta_vs_it"] = {"value": -0.025, "ci95": [-0.125, 0.075]}
    assert "(−2.5 points [−12.5, +7.5]; one of 14.3 points would have been detected)" in "\n".join(
        said(metrics).details
    )


def test_the_first_sentence_says_how_much_at_what_cost_and_how_sure():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    metrics["m"]["it"]["fluency"]["perplexity"], metrics["m"]["ft"]["fluency"]["perplexity"] = 2.1, 3.4
    lead = said(metrics).lead
    assert lead.startswith("50.0 % of base's 40 completions on p50 are toxic; `ft` lowers it to 5.0 % (−45.0 points [")
    assert "; perplexity under base 2.1 (base), 3.4 (`ft`); no placebo and one training seed." in lead


def test_a_placebo_stands_in_the_first_sentence_and_is_no_method_itself():
    lead = said(metrics_of(it=variant("it", 20), ft=variant("ft", 2), placebo=variant("placebo", 19))).lead
    assert "`placebo` changes it by −2.5 points [" in lead
    assert "no difference shown for `placebo`" not in lead and "no placebo" not in lead


def pair(toxicity, entropy):
    found = {"toxicity": {"p50": {"rate_gt_50": toxicity}}, "fluency": {"perplexity": None}}
    return found | {"attribution": {"on_base_text": {"prompt_entropy_bits": entropy}}}


def compared(toxicity, entropy):
    """ft against rl, by numbers set by hand."""
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2), rl=variant("rl", 3))
    metrics["m"]["ft"]["pairs"] = {"rl": pair(toxicity, entropy)}
    return metrics


def test_the_methods_are_compared_directly():
    less = {"value": -0.1, "ci95": [-0.15, -0.05]}
    unclear = {"value": 0.02, "ci95": [-0.08, 0.12]}
    found = said(compared(less, unclear))
    assert "; `ft` less toxic than `rl` (−10.0 points [−15.0, −5.0]);" in found.lead
    assert (
        "`ft` against `rl`, on the same prompts: toxic completions of p50 −10.0 points [−15.0, −5.0]; prompt entropy "
        "on base's text +0.020 bits [−0.080, +0.120]; no difference shown; one of 0.143 bits would have been detected."
    ) in found.details
    more = said(compared({"value": 0.1, "ci95": [0.05, 0.15]}, unclear))
    assert "; `rl` less toxic than `ft` (+10.0 points [+5.0, +15.0]);" in more.lead
    assert "; no difference shown between `ft` and `rl` (+2.0 points [" in said(compared(unclear, unclear)).lead


def test_several_seeds_are_one_clause_with_the_mean_over_them():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2), rl=variant("rl", 3))
    mean = {
        "value": 0.07,
        "ci95": [0.01, 0.2],
        "sd_between_seeds": 0.02,
        "delta_vs_it": {"value": -0.43, "ci95": [-0.6, -0.2]},
    }
    metrics["m"]["ft"]["method"] = {"variants": ["ft", "rl"], "toxicity": {"p50": {"rate_gt_50": mean}}}
    metrics["m"]["ft"].pop("pairs", None)  # one method has none
    found = said(metrics, groups={"it": "it", "ft": "x", "rl": "x"})
    assert "; `ft` (2 seeds) lowers it to 7.0 % (−43.0 points [−60.0, −20.0])" in found.lead
    assert "; 2 training seeds; no placebo." in found.lead
    assert not any("`rl`" in sentence for sentence in found.details)  # the second seed


def test_nothing_is_concluded_from_fewer_than_thirty():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    for found in metrics["m"].values():
        found["toxicity"]["p50"]["num_scored"] = 29
    found = said(metrics)
    assert found.lead == "29 completions of base on p50 scored: too few for a sentence (30 needed)."
    assert "`ft`: too few scored to say on p50 (n = 29)." in found.details


@pytest.mark.parametrize(
    ("bits", "what"),
    [
        (2.5, "`ft` reading the same text as base: prompt entropy higher than base's (+0.500 bits ["),
        (2.0, "`ft` reading the same text as base: no difference in prompt entropy shown (0.000 bits ["),
    ],
)
def test_the_use_of_the_prompt_is_that_of_the_model_on_the_same_text(bits, what):
    text = sentences(it=variant("it", 0), ft=variant("ft", 0, bits))
    assert what in text and "40 prompts, step 1" in text


def test_a_difference_that_the_placebo_shows_too_is_not_called_detoxification():
    it, ft = variant("it", 0), variant("ft", 0, 2.5)
    assert "no placebo shows whether any training does this" in sentences(it=it, ft=ft)
    same = sentences(it=it, ft=ft, placebo=spread(variant("placebo", 0, 2.4), by=0.5))
    assert "its placebo `placebo` shows it too (+0.400 bits [" in same and "not particular to detoxification" in same
    assert "; the difference is +0.100 bits [" in same and ", not shown; one of " in same


def test_a_difference_of_which_the_placebo_has_a_part_says_how_much():
    it, ft = variant("it", 0), variant("ft", 0, 2.5)
    part = sentences(it=it, ft=ft, placebo=variant("placebo", 0, 2.4))
    assert "its placebo `placebo` has 80 % of it (+0.400 bits [" in part and "; the difference is +0.100 bits [" in part
    assert "not particular" not in part
    none = sentences(it=it, ft=ft, placebo=variant("placebo", 0, 2.0))
    assert "its placebo `placebo` does not show it (0.000 bits [" in none
    unsure = sentences(it=it, ft=spread(ft, by=1.0), placebo=spread(variant("placebo", 0, 2.1), by=-1.0))
    assert "its placebo `placebo` does not show it (+0.100 bits [" in unsure and ", not shown; one of " in unsure


def test_an_effect_whose_sign_another_method_of_attribution_turns_says_so():
    metrics = metrics_of(it=variant("it", 0), ft=variant("ft", 0, 2.5))
    signs = {"prompt_entropy_bits": {"saliency": True, "occlusion": False}}
    metrics["m"]["ft"]["attribution"]["checks"]["methods"] = {"sign_holds": signs}
    (of_entropy,) = [s for s in said(metrics).details if "prompt entropy higher than base's" in s]
    assert "; by occlusion its sign turns" in of_entropy and "saliency" not in of_entropy


def test_an_effect_that_was_not_measured_gives_its_reason():
    metrics = metrics_of(it=variant("it", 0), ft=tables("ft", [], {p: 0.1 for p in PROMPTS}))
    assert "`ft`, prompt entropy on the same text: not measured (no attribution of" in "\n".join(said(metrics).details)


def test_toxic_and_other_texts_are_compared_only_when_both_are_enough():
    many = metrics_of(it=variant("it", 20))
    contrast = many["m"]["it"]["attribution"]["contrast"]["by_it"]["prompt_entropy_bits"]
    contrast |= {"num_toxic": 30, "num_other": 31, "toxic_minus_other": {"value": -0.5, "ci95": [-0.6, -0.4]}}
    said_of_it = (
        "Base reading base's completions: prompt entropy lower in the toxic ones than in the others (−0.500 bits ["
    )
    assert said_of_it in "\n".join(said(many).details)
    few = sentences(it=variant("it", 3))
    assert "too few to compare toxic with other completions (3 toxic and 37 others)" in few


def test_a_variant_that_answers_as_another_did_not_learn_and_has_no_interval():
    it = variant("it", 20)
    metrics = metrics_of(it=it, ft=variant("ft", 2), rl=dataclasses.replace(it, variant="rl"))
    rl = metrics["m"]["rl"]
    assert rl["identical_to"] == "it"
    delta = rl["toxicity"]["p50"]["delta_vs_it"]
    assert (delta["value"], delta["ci95"]) == (0.0, None)
    found = said(metrics)
    assert "`rl` did not learn and answers as base does, token for token" in found.lead
    assert [s for s in found.details if "`rl`" in s] == [s for s in found.details if s.startswith("`rl` is base: ")]
