"""Direct comparisons: every two methods on the same prompts, several seeds as one method, the same text for both."""

import dataclasses

import numpy as np
import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import Fluency
from detoxlens.evaluation.multiplicity import p_value
from detoxlens.evaluation.rates import rate_difference
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.samples import standardised
from tests.reporting.test_curves import CONFIG, study, tables, trace

PROMPTS = "abcdefgh"


def made(toxic, variant="it", group=None, words=(1, 2)):
    """A variant whose completions of the prompts in `toxic` are toxic, every one of the same words."""
    found = tables(variant, [], {p: 0.9 if p in toxic else 0.1 for p in PROMPTS})
    rows = [
        Fluency(
            prompt_id=p, sample_index=0, nll_nats=len(words) * 1.0, num_tokens=len(words), mentions_prompt=p in toxic
        )
        for p in PROMPTS
    ]
    completions = [dataclasses.replace(c, completion_ids=tuple(words)) for c in found.completions]
    return dataclasses.replace(found, group=group or variant, fluency=rows, completions=completions)


def built(config=CONFIG, **variants):
    return build_metrics(study(**variants), config, missing="exclude")["m"]


def test_two_methods_are_compared_directly_on_the_prompts_that_both_have():
    ft, rl = made("ab", "ft"), made("bcd", "rl", words=(1, 2, 3))
    found = built(it=made("abcdefgh"), ft=ft, rl=rl)
    assert "pairs" not in found["rl"] and "pairs" not in found["it"]
    pair = found["ft"]["pairs"]["rl"]
    rate = pair["toxicity"]["p50"]["rate_gt_50"]
    expected = rate_difference(PROMPTS, [p in "ab" for p in PROMPTS], PROMPTS, [p in "bcd" for p in PROMPTS])
    assert rate == {
        "value": expected.value,
        "ci95": list(expected.ci95),
        "num_prompts": 8,
        "detectable": pytest.approx(1.4294 * (expected.ci95[1] - expected.ci95[0]) / 2, rel=1e-4),
        "p_value": p_value(expected),
    }
    assert pair["fluency"]["mean_length"]["value"] == 2 - 3
    assert pair["fluency"]["perplexity"]["value"] == pytest.approx(0)  # e ** 1 both


def test_which_pairs_is_a_setting_and_an_unknown_method_is_named():
    variants = {"it": made("abc"), "ft": made("a", "ft"), "rl": made("b", "rl"), "placebo": made("c", "placebo")}
    everyone = built(**variants)
    assert set(everyone["ft"]["pairs"]) == {"rl", "placebo"} and set(everyone["rl"]["pairs"]) == {"placebo"}
    one = built(CONFIG.model_copy(update={"pairs": [("ft", "placebo")]}), **variants)
    assert set(one["ft"]["pairs"]) == {"placebo"} and "pairs" not in one["rl"]
    none = built(CONFIG.model_copy(update={"pairs": "none"}), **variants)
    assert not any("pairs" in entry for entry in none.values())
    with pytest.raises(UserError, match=r"pairs names 'placebbo'.*Did you mean 'placebo'.*There are ft, rl, placebo"):
        built(CONFIG.model_copy(update={"pairs": [("placebbo", "rl")]}), **variants)


def test_several_seeds_are_one_method_with_its_spread():
    # rates 2/8, 1/8, 3/8: mean .25, sd .125
    seeds = {"ft": made("ab", "ft"), "ft-1": made("a", "ft-1", "ft"), "ft-2": made("abc", "ft-2", "ft")}
    found = built(it=made("abcdefgh"), rl=made("h", "rl"), **seeds)
    method = found["ft"]["method"]
    rate = method["toxicity"]["p50"]["rate_gt_50"]
    assert method["variants"] == ["ft", "ft-1", "ft-2"]
    assert (rate["value"], rate["sd_between_seeds"]) == (pytest.approx(0.25), pytest.approx(0.125))
    assert rate["delta_vs_it"]["value"] == pytest.approx(-0.75)
    assert "method" not in found["ft-1"] and "method" not in found["rl"]
    assert found["rl"]["pairs"]["ft"]["toxicity"]["p50"]["rate_gt_50"]["value"] == pytest.approx(1 / 8 - 0.25)
    one_seed = found["ft"]["toxicity"]["p50"]["ci95"]
    assert rate["ci95"][0] < rate["value"] < rate["ci95"][1] and one_seed != rate["ci95"]


def test_the_use_of_the_prompt_is_compared_on_the_same_text():
    """`ft` reads the text of `it` with one bit more than `rl`, whatever either writes itself."""
    it = tables("it", [trace(p, [1.0, 2.0]) for p in "abc"], dict.fromkeys("abc", 0.9))
    ft = tables("ft", [trace(p, [3.0, 3.0], "ft", "it") for p in "abc"] + [trace("a", [9.0], "ft")], {})
    rl = tables("rl", [trace(p, [2.0, 2.0], "rl", "it") for p in "abc"] + [trace("a", [0.0] * 5, "rl")], {})
    pair = built(it=it, ft=ft, rl=rl)["ft"]["pairs"]["rl"]["attribution"]["on_base_text"]
    assert pair["prompt_entropy_bits"]["value"] == pytest.approx(1.0)


def test_divergence_from_base_is_compared_between_methods():
    def read(variant, js):
        of = {"jensen_shannon": np.array(js), "kl": np.array(js)}
        return tables(variant, [trace(p, [1.0, 1.0], variant, "it", divergence=of) for p in "abc"], {})

    it = tables("it", [trace(p, [1.0, 1.0]) for p in "abc"], dict.fromkeys("abc", 0.9))
    found = built(it=it, ft=read("ft", [0.1, 0.3]), rl=read("rl", [0.1, 0.1]))
    apart = found["ft"]["pairs"]["rl"]["attribution"]["on_base_text"]["jensen_shannon_bits"]
    assert apart["value"] == pytest.approx(0.1)  # (.1 + .3) / 2 - .1


def test_a_placebo_is_compared_with_its_method_whatever_pairs_are_asked_for():
    variants = {"it": made("abc"), "ft": made("a", "ft"), "rl": made("b", "rl"), "placebo": made("c", "placebo")}
    of = dataclasses.replace(study(**variants), placebos={"placebo": "ft", "gone": "rl"})
    none = build_metrics(of, CONFIG.model_copy(update={"pairs": "none"}), missing="exclude")["m"]
    assert set(none["ft"]["pairs"]) == {"placebo"} and "pairs" not in none["rl"]
    assert set(build_metrics(of, CONFIG, missing="exclude")["m"]["ft"]["pairs"]) == {"rl", "placebo"}


def test_standardised_rows_have_the_mean_of_step_means_as_their_mean():
    # steps: (1 + 3) / 2 = 2 and 5 alone -> (2 + 5) / 2 = 3.5; a mean over all tokens would be 3
    rows = standardised(np.array([[1.0, 5.0], [3.0, np.nan]]))
    assert rows.mean() == pytest.approx(3.5)
    assert rows.tolist() == pytest.approx([(1 + 5) / 2, (3 + 5) / 2])


def test_standardised_rows_spread_as_the_bootstrap_of_the_step_means_does():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 1)) + rng.normal(size=(200, 10))
    for row, length in zip(values, rng.integers(2, 11, size=200), strict=True):
        row[length:] = np.nan
    drawn = [np.nanmean(values[rng.integers(0, 200, 200)], axis=0).mean() for _ in range(2000)]
    assert standardised(values).std(ddof=1) / 200**0.5 == pytest.approx(np.std(drawn), rel=0.06)


def test_every_difference_says_what_it_could_have_detected_and_on_how_many_prompts():
    found = built(it=made("abc"), ft=made("a", "ft"))["ft"]
    assert found["toxicity"]["p50"]["delta_vs_it"]["num_prompts"] == 8
    assert found["fluency"]["measures"]["mean_length"]["delta_vs_it"]["detectable"] == 0  # every text has two words
    assert set(found["fluency"]["measures"]) == {
        "perplexity",
        "mean_length",
        "ended_by_eos",
        "repetition_2",
        "prompt_mention_rate",
        "distinct_adjusted_1",
        "distinct_adjusted_2",
    }
