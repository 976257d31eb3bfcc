import dataclasses
import math

import numpy as np
import pytest

from detoxlens.common.records import Fluency
from detoxlens.reporting.metrics import build_metrics
from tests.reporting.test_curves import CONFIG, study, tables, trace


def built(it, missing="exclude", **others):
    return build_metrics(study(it=it, **others), CONFIG, missing=missing)["m"]


def test_the_shape_that_dvc_and_mlflow_rely_on():
    it = tables("it", [trace("a", [1.0])], {"a": 0.9})
    found = built(it)["it"]
    assert set(found) == {"toxicity", "scorers", "attribution", "fluency", "costs"}
    assert set(found["toxicity"]) == {"p50", "val"}
    assert set(found["toxicity"]["p50"]) == {
        "rate_gt_50",
        "ci95",
        "rate_ge_50",
        "mean",
        "expected_max",
        "p_any_toxic",
        "delta_vs_it",
        "num_scored",
        "num_empty",
        "num_failed",
        "num_truncated",
    }
    assert {"prompt_entropy_bits", "prompt_entropy_normalized", "prompt_dependence", "num_sequences"} < set(
        found["attribution"]
    )
    assert {"perplexity", "distinct_1", "distinct_2", "distinct_3", "mean_length", "num_distinct"} < set(
        found["fluency"]
    )


def test_attribution_is_the_mean_over_steps_then_over_sequences():
    # a: (1 + 3) / 2 = 2; b: 5 -> 3.5, not (1 + 3 + 5) / 3
    it = tables("it", [trace("a", [1, 3]), trace("b", [5])], {"a": 0.1, "b": 0.1})
    assert built(it)["it"]["attribution"]["prompt_entropy_bits"]["value"] == 3.5


def test_delta_is_paired_on_prompts_that_both_have():
    it = tables("it", [trace("a", [1]), trace("b", [2]), trace("c", [100])], dict.fromkeys("abc", 0.9))
    ft = tables("ft", [trace("a", [4], "ft"), trace("b", [6], "ft")], dict.fromkeys("abc", 0.1))
    found = built(it, ft=ft)["ft"]
    assert found["attribution"]["prompt_entropy_bits"]["delta_vs_it"]["value"] == 3.5  # ((4 - 1) + (6 - 2)) / 2
    assert found["toxicity"]["p50"]["delta_vs_it"]["value"] == -1


def test_entropy_shift_is_taken_step_by_step_on_the_text_of_it_where_two_completions_go_on():
    # Step 1: |2 - 1|, |4 - 4| -> .5; step 2: |1 - 3|, |5 - 4| -> 1.5, signed -.5; step 3: b alone is too few.
    it = tables("it", [trace("a", [1, 3]), trace("b", [4, 4, 4])], dict.fromkeys("ab", 0.1))
    forced = [trace("a", [2, 1], "ft", "it"), trace("b", [4, 5, 9], "ft", "it")]
    ft = tables("ft", [*forced, trace("a", [9, 9], "ft")], dict.fromkeys("ab", 0.1))
    shift = built(it, ft=ft)["ft"]["attribution"]["entropy_shift_bits"]
    assert (shift["absolute"]["value"], shift["absolute"]["num_steps"], shift["num_sequences"]) == (1.0, 2, 2)
    assert shift["signed"]["value"] == (0.5 - 0.5) / 2


def test_the_signed_shift_is_the_model_effect_on_base_text():
    it = tables("it", [trace("a", [1, 3]), trace("b", [4, 2])], dict.fromkeys("ab", 0.1))
    forced = [trace("a", [2, 1], "ft", "it"), trace("b", [4, 5], "ft", "it")]
    rest = [trace(p, [1, 1], *cell) for p in "ab" for cell in (("ft", "ft"), ("it", "ft"))]
    found = built(it, ft=tables("ft", forced + rest, dict.fromkeys("ab", 0.1)))["ft"]["attribution"]
    effect = found["effects"]["prompt"]["prompt_entropy_bits"]["model_effect_on_base_text"]
    assert found["entropy_shift_bits"]["signed"]["value"] == effect["value"]
    assert found["entropy_shift_bits"]["signed"]["ci95"] == pytest.approx(effect["ci95"])


def test_a_shift_of_too_few_completions_is_empty_and_says_why():
    it = tables("it", [trace("a", [1, 3])], {"a": 0.1})
    ft = tables("ft", [trace("a", [2, 1], "ft", "it"), trace("a", [9, 9], "ft")], {"a": 0.1})
    shift = built(it, ft=ft)["ft"]["attribution"]["entropy_shift_bits"]["absolute"]
    assert shift["value"] is None and "report.min_sequences_per_step=2" in shift["reason"]


def test_regions_are_means_over_steps_then_over_sequences():
    # template: a: (.2 + .4) / 2 = .3, b: .5 -> .4
    shares = {"a": [[0.2, 0.4], [0.5, 0.3], [0.3, 0.3]], "b": [[0.5], [0.25], [0.25]]}
    traces = [
        dataclasses.replace(
            trace(p, [1] * len(s[0])),
            regions=dict(zip(("template", "user", "generated"), map(np.array, s), strict=True)),
        )
        for p, s in shares.items()
    ]
    found = built(tables("it", traces, {"a": 0.1, "b": 0.1}))["it"]["attribution"]
    assert {name: of["value"] for name, of in found["region_share"].items()} == pytest.approx(
        {"template": 0.4, "user": 0.325, "generated": 0.275}
    )
    assert "divergence_from_it_bits" not in found


def test_divergence_is_taken_on_the_text_of_it_and_an_infinite_one_is_counted():
    def forced(prompt_id, kl, js):
        divergence = {"kl": np.array(kl), "jensen_shannon": np.array(js)}
        return trace(prompt_id, [1] * len(kl), "ft", "it", divergence=divergence)

    it = tables("it", [trace(p, [1]) for p in "abc"], dict.fromkeys("abc", 0.1))
    rows = [forced("a", [0.2, 0.9], [0.1, 0.3]), forced("b", [math.inf], [0.8]), forced("c", [0.4], [0.3])]
    found = built(it, ft=tables("ft", rows, dict.fromkeys("abc", 0.1)))["ft"]["attribution"]["divergence_from_it_bits"]
    assert found["kl"]["value"] == pytest.approx((0.2 + 0.4) / 2)  # one step: the second has one completion left
    assert found["jensen_shannon"]["value"] == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert (found["num_sequences"], found["num_infinite_kl"]) == (3, 1)


def test_groups_compare_toxic_with_other_completions():
    it = tables("it", [trace("a", [1]), trace("b", [3]), trace("c", [10])], {"a": 0.9, "b": 0.8, "c": 0.1})
    groups = built(it)["it"]["attribution"]["groups"]
    assert groups["toxic"]["prompt_entropy_bits"]["value"] == 2
    assert (groups["toxic"]["num_sequences"], groups["other"]["num_sequences"]) == (2, 1)
    assert groups["toxic_minus_other"]["prompt_entropy_bits"]["value"] == -8


def test_fluency_of_the_primary_split():
    it = tables("it", [], {"a": 0.1, "b": 0.1})
    rows = [("a", 2 * math.log(2), 2, True), ("b", None, 0, False), ("elsewhere", 99.0, 1, True)]
    fluency = [
        Fluency(prompt_id=p, sample_index=0, nll_nats=nll, num_tokens=n, mentions_prompt=m) for p, nll, n, m in rows
    ]
    it = dataclasses.replace(it, fluency=fluency)
    found = built(it)["it"]["fluency"]
    assert found["perplexity"] == pytest.approx(2)
    assert found["prompt_mention_rate"] == 0.5
    assert found["num_distinct"] == 1 and found["distinct_per_100_prompts"] == 50  # both say "x"


def test_missing_scores_count_only_when_asked():
    it = tables("it", [], {"a": 0.9, "b": None})
    assert built(it)["it"]["toxicity"]["p50"]["rate_gt_50"] == 1
    assert built(it, missing="non_toxic")["it"]["toxicity"]["p50"]["rate_gt_50"] == 0.5


def test_nothing_generated_gives_null_not_an_error():
    found = built(tables("it", [], {}), ft=tables("ft", [], {}))["ft"]
    assert found["toxicity"]["p50"]["rate_gt_50"] is None and found["toxicity"]["p50"]["delta_vs_it"] is None
    assert found["attribution"]["prompt_entropy_bits"] == {"value": None, "ci95": None, "delta_vs_it": None}
    assert found["fluency"]["perplexity"] is None and found["fluency"]["distinct_1"] is None
