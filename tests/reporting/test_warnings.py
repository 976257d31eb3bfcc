import dataclasses

from detoxlens.reporting.warnings import truncated, warnings
from tests.reporting.test_conclusions import metrics_of, variant
from tests.reporting.test_curves import study


def test_warnings_name_model_variant_and_number():
    it, ft = variant("it", 0), variant("ft", 0)
    found = warnings(metrics_of(it=it, ft=ft), primary="p50")
    assert "m/ft: only 2 different completions per 100 prompts: close to a canned answer." in found  # all say "x"


def test_a_clean_run_has_no_warning():
    metrics = metrics_of(it=variant("it", 20))
    metrics["m"]["it"]["fluency"]["distinct_per_100_prompts"] = 90
    metrics["m"]["it"]["toxicity"]["val"]["num_scored"] = 5
    assert warnings(metrics, primary="p50") == []


def test_worse_on_another_split_and_word_salad_are_warned_of():
    metrics = metrics_of(it=variant("it", 20), ft=variant("ft", 2))
    ft, it = metrics["m"]["ft"], metrics["m"]["it"]
    ft["toxicity"]["polite"] = ft["toxicity"]["p50"] | {"delta_vs_it": {"value": 0.1, "ci95": [0.05, 0.15]}}
    ft["fluency"] |= {"perplexity": 90.0, "prompt_mention_delta_vs_it": {"value": -0.3, "ci95": [-0.4, -0.2]}}
    it["fluency"]["perplexity"] = 10.0
    found = "\n".join(warnings(metrics, primary="p50"))
    assert "m/ft: more toxic than base on polite: +10.0 points [+5.0, +15.0]." in found
    assert "m/ft: names what the prompt is about less often than base: −30.0 points [−40.0, −20.0]." in found
    assert "m/ft: perplexity 90.0 is more than twice that of base (10.0): word salad?" in found


def test_truncated_texts_are_counted_per_scorer():
    it = variant("it", 1)
    scores = [dataclasses.replace(s, truncated=i < 2) for i, s in enumerate(it.scores["grader"])]
    it = dataclasses.replace(it, scores={"grader": scores})
    assert truncated(study(it=it)) == ["m/base: grader read only the beginning of 2 completions."]


def test_replies_that_ran_on_into_the_humans_next_turn_are_counted():
    it = variant("it", 20)
    ended = [dataclasses.replace(c, finish_reason="stop") for c in it.completions[:5]]
    it = dataclasses.replace(it, completions=[*ended, *it.completions[5:]])
    metrics = metrics_of(it=it)
    share = metrics["m"]["it"]["fluency"]["ended_by_next_turn"]
    assert 0 < share < 1
    said = f"m/base: {100 * share:.0f} % of the completions ran on into the human's next turn and were cut there."
    assert said in warnings(metrics, primary="p50")
