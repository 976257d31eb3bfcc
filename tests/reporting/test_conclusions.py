import dataclasses

import pytest

from detoxlens.reporting.conclusions import conclusions, truncated, warnings
from detoxlens.reporting.metrics import build_metrics
from tests.reporting.test_curves import CONFIG, study, tables, trace

PROMPTS = [f"p{i}" for i in range(40)]


def variant(name: str, toxic: int, bits: float = 2.0):
    """40 prompts, the first `toxic` of which were answered toxically."""
    toxicity = {p: 0.9 if i < toxic else 0.1 for i, p in enumerate(PROMPTS)}
    traces = [trace(p, [bits + 0.01 * (i % 7) - (0.5 if i < toxic else 0)], name) for i, p in enumerate(PROMPTS)]
    return tables(name, traces, toxicity)


def metrics_of(**variants):
    return build_metrics(study(**variants), CONFIG, missing="exclude")


def sentences(min_group: int = 10, **variants) -> str:
    return "\n".join(conclusions(metrics_of(**variants), splits=["p50"], min_group=min_group)["m"])


def test_less_toxic_needs_an_interval_below_zero():
    assert "`ft`: less toxic than base on p50 (−45.0 points [" in sentences(it=variant("it", 20), ft=variant("ft", 2))
    assert "`ft`: more toxic than base on p50 (+45.0 points [" in sentences(it=variant("it", 2), ft=variant("ft", 20))
    assert "`ft`: no difference to base shown on p50" in sentences(it=variant("it", 20), ft=variant("ft", 19))


def test_toxic_and_other_completions_are_compared_only_when_both_are_enough():
    assert "entropy lower in its toxic completions than in its others (20 and 20" in sentences(it=variant("it", 20))
    few = sentences(it=variant("it", 3))
    assert "too few to compare toxic with other completions (3 and 37" in few


@pytest.mark.parametrize(
    ("bits", "said"), [(2.5, "prompt entropy higher than that of base (+0.5"), (2.0, "no difference in")]
)
def test_prompt_use_is_compared_with_it(bits, said):
    text = sentences(it=variant("it", 0), ft=variant("ft", 0, bits))
    assert said in text


def test_warnings_name_model_variant_and_number():
    it, ft = variant("it", 0), variant("ft", 0)
    found = warnings(metrics_of(it=it, ft=ft), primary="p50")
    assert "m/ft: only 2 different completions per 100 prompts: close to a canned answer." in found  # all say "x"


def test_a_clean_run_has_no_warning():
    metrics = metrics_of(it=variant("it", 20))
    metrics["m"]["it"]["fluency"]["distinct_per_100_prompts"] = 90
    metrics["m"]["it"]["toxicity"]["val"]["num_scored"] = 5
    assert warnings(metrics, primary="p50") == []


def test_worse_on_another_split_and_word_salad_are_told():
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
    it.scores["grader"][:2] = [dataclasses.replace(s, truncated=True) for s in it.scores["grader"][:2]]
    assert truncated(study(it=it)) == ["m/base: grader read only the beginning of 2 completions."]
