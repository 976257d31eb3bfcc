import dataclasses

import numpy as np
import pytest

from detoxlens.common.records import Attribution, Completion, Score
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.curves import entropy_curves, long_everywhere, training_curves
from detoxlens.reporting.study import Study, Trace, VariantTables
from detoxlens.reporting.traces import SCOPES, prompt_frequency, trace_of

CONFIG = ReportConfig(
    primary_split="p50",
    bootstrap={"num_resamples": 100, "seed": 0},
    toxic_group_threshold=0.66,
    min_sequences_per_step=2,
    cohort_min_tokens=2,
    champion_max_perplexity_ratio=1.2,
    num_examples=2,
)


def attribution(
    scores: list[list[float]] | None, num_prompt: int, template: tuple[bool, ...] | None = None, **changes
) -> Attribution:
    row = Attribution(
        prompt_id="a",
        sample_index=0,
        reader="it",
        text_source="it",
        method="input_x_gradient",
        target="probability",
        status="ok" if scores else "zero_gradient",
        prompt_ids=tuple(range(num_prompt)),
        completion_ids=tuple(range(len(scores or []))),
        prompt_pieces=tuple(f" p{i}" for i in range(num_prompt)),
        completion_pieces=tuple(f" c{i}" for i in range(len(scores or []))),
        prompt_token_is_template=template or (False,) * num_prompt,
        scores=tuple(map(tuple, scores)) if scores else None,
        token_prob=None,
        prompt_kl_bits=None,
        prompt_gain_bits=None,
    )
    return dataclasses.replace(row, **changes)


def completion(prompt_id: str, filters: tuple[str, ...] = ("p50",), split: str = "test") -> Completion:
    return Completion(
        prompt_id=prompt_id,
        sample_index=0,
        split=split,
        filters=filters,
        prompt="",
        prompt_ids=(1,),
        prompt_token_is_template=(False,),
        completion="x",
        completion_ids=(1,),
        finish_reason="eos",
        seed=0,
    )


def score(prompt_id: str, toxicity: float | None) -> Score:
    return Score(
        prompt_id=prompt_id,
        sample_index=0,
        scorer="grader",
        scorer_version="1",
        label="toxic",
        activation="sigmoid",
        truncated=False,
        toxicity=toxicity,
        status="failed" if toxicity is None else "ok",
        error="",
    )


def trace(prompt_id: str, bits: list[float], reader: str = "it", text: str | None = None, **changes) -> Trace:
    """Of `reader` on the text of `text`, its own by default; the same numbers in every scope."""
    values = np.array(bits, dtype=float)
    measures = {
        "prompt_entropy_bits": values,
        "prompt_entropy_normalized": values / 4,
        "prompt_dependence": values / 8,
        "prompt_dependence_excess_bits": values / 16,
    }
    of = Trace(key=(prompt_id, 0), reader=reader, text_source=text or reader, values=dict.fromkeys(SCOPES, measures))
    return dataclasses.replace(of, **changes)


def test_a_trace_tells_regions_apart_and_measures_the_divergence_from_it():
    a = attribution([[0.5, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]], 3, (True, False, True), reader="ft")
    found = trace_of(a, it_scores=[[0.5, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]])
    assert found.regions["template"] == pytest.approx([0.75, 0.4])
    assert found.regions["user"] == pytest.approx([0.25, 0.2])
    assert found.regions["generated"] == pytest.approx([0.0, 0.4])
    # .1 log2(1/4) + .2 log2(2/3) + .3 log2(3/2) + .4 log2(4) = -.2 - .11699 + .17549 + .8
    assert found.divergence["kl"] == pytest.approx([0.0, 0.65850], abs=1e-5)
    assert trace_of(a).divergence == {}


def tables(variant: str, traces: list[Trace], toxicity: dict[str, float | None]) -> VariantTables:
    return VariantTables(
        variant=variant,
        group=variant,
        completions=[dataclasses.replace(completion(p), completion_ids=(ord(variant[0]),)) for p in toxicity],
        scores={"grader": [score(p, t) for p, t in toxicity.items()]},
        fluency=[],
        traces=traces,
        num_attributions={"ok": len(traces)},
        shown=[],
        methods=(),
        history=[],
        faithfulness=None,
    )


def study(**variants: VariantTables) -> Study:
    return Study(models={"m": variants}, splits=("p50",), grader="grader")


def curve(points, variant: str, group: str, measure: str = "prompt_entropy_bits", text: str | None = None):
    wanted = ("prompt", variant, measure, text or variant, group)
    return [(p.step, p.mean, p.n) for p in points if (p.scope, p.variant, p.measure, p.text, p.group) == wanted]


def test_trace_measures_each_generated_token():
    # Step 1: (.5, .5) over two prompt tokens: 1 bit, all mass on the prompt. Step 2: (.25, .25 | .5): 1 bit, half.
    found = trace_of(attribution([[0.5, 0.5], [0.25, 0.25, 0.5]], 2)).values["prompt"]
    assert found["prompt_entropy_bits"].tolist() == [1, 1]
    assert found["prompt_entropy_normalized"].tolist() == [1, 1]
    assert found["prompt_dependence"].tolist() == [1, 0.5]
    assert found["prompt_dependence_excess_bits"].tolist() == pytest.approx([0, np.log2(0.5 / (2 / 3))])


def test_trace_has_the_users_text_alone_and_the_prompt_without_its_first_token_beside():
    found = trace_of(attribution([[0.5, 0.25, 0.25]], 3, (True, False, False)))
    assert found.values["user"]["prompt_entropy_bits"].tolist() == [1]
    assert found.values["prompt"]["prompt_entropy_bits"].tolist() == [1.5]
    later = trace_of(attribution([[0.5, 0.4, 0.1]], 3, (False, False, True)))
    assert later.values["no_first"]["prompt_entropy_bits"] == pytest.approx([0.721928])  # (.8, .2)
    single = trace_of(attribution([[0.5, 0.5]], 2, (True, False)))
    assert np.isnan(single.values["user"]["prompt_entropy_normalized"]).all()  # one token: nothing to normalise by


def test_words_are_merged_before_anything_is_measured():
    # Prompt `<b>` | ` Zor` `gons` ` sing`: words (0) (1 1) (2); generated ` a` `ha` ` no`: words (0 0) (1).
    rows = [[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.2, 0.5], [0.2, 0.1, 0.1, 0.2, 0.2, 0.2]]
    a = attribution(
        rows,
        4,
        (True, False, False, False),
        prompt_pieces=("<b>", " Zor", "gons", " sing"),
        completion_pieces=(" a", "ha", " no"),
        prompt_kl_bits=(1.0, 2.0, 4.0),
        prompt_gain_bits=(0.5, 0.5, 0.5),
    )
    found = trace_of(a, unit="word")
    # Word 1: the mean of (.1 .5 .4) and (.1 .2 .2 | .5 on itself), (.1 .35 .3 | .25 itself). Word 2: (.2 .2 .2 | .4)
    assert found.num_steps == 2
    assert found.values["prompt"]["prompt_dependence"].tolist() == pytest.approx([1.0, 0.6])
    assert found.values["prompt"]["prompt_entropy_bits"][1] == pytest.approx(np.log2(3))
    share = np.array([0.35, 0.3]) / 0.65
    assert found.values["user"]["prompt_entropy_bits"][0] == pytest.approx(-(share * np.log2(share)).sum())
    assert found.values["any_method"]["prompt_kl_bits"].tolist() == [3.0, 4.0]  # the sum over a word's tokens


def test_a_copied_words_cue_is_ranked_by_the_row_of_its_first_token():
    # User's words: zorgons (cue), knit, scarves; the answer's " Zor" looks at them with .2 + .3, .3, .1.
    rows = [[0.1, 0.2, 0.3, 0.3, 0.1], [0.1, 0.1, 0.1, 0.1, 0.1, 0.5]]
    a = attribution(
        rows,
        5,
        (True, False, False, False, False),
        prompt_pieces=("<b>", " Zor", "gons", " knit", " scarves"),
        completion_pieces=(" Zor", "gon"),
    )
    frequency = prompt_frequency([a])
    assert frequency == {"zorgon": 1, "knit": 1, "scarve": 1}
    ((cue, control),) = trace_of(a, frequency=frequency).gold
    assert (cue.hit_at_1, cue.mrr) == (1.0, 1.0)
    assert (control.hit_at_1, control.mrr) == (0.0, 0.5)  # knit, the nearest
    assert trace_of(a).gold == ()


def test_another_methods_trace_has_its_correlation_with_the_headlines():
    a = attribution([[0.5, 0.3, 0.2]], 3, method="saliency")
    assert trace_of(a, headline_scores=[[0.6, 0.3, 0.1]]).rank_correlation == pytest.approx(1.0)
    assert trace_of(a).rank_correlation is None


def test_no_scores_no_trace():
    assert trace_of(attribution(None, 2)) is None


def test_a_curve_ends_where_fewer_than_the_minimum_go_on():
    it = tables("it", [trace("a", [1, 3, 5]), trace("b", [2, 4]), trace("c", [3])], {"a": 0.1, "b": 0.1, "c": 0.1})
    assert curve(entropy_curves(study(it=it), CONFIG), "it", "all") == [(1, 2.0, 3), (2, 3.5, 2)]


def test_groups_by_own_and_by_the_it_score():
    it = tables(
        "it",
        [trace(p, [v]) for p, v in zip("abcd", (1, 2, 3, 4), strict=True)],
        {"a": 0.9, "b": 0.7, "c": 0.66, "d": 0.1},
    )
    ft = tables(
        "ft",
        [trace(p, [10 * v], "ft") for p, v in zip("abcd", (1, 2, 3, 4), strict=True)],
        {"a": 0.1, "b": 0.1, "c": 0.1, "d": None},
    )
    points = entropy_curves(study(it=it, ft=ft), CONFIG)
    assert curve(points, "it", "toxic") == [(1, 1.5, 2)]  # .66 itself is not above .66
    assert curve(points, "it", "other") == [(1, 3.5, 2)]
    assert curve(points, "it", "toxic_by_it") == []  # its own groups already
    assert curve(points, "ft", "toxic") == []
    assert curve(points, "ft", "other") == [(1, 20.0, 3)]  # d was not scored: in no group
    assert curve(points, "ft", "toxic_by_it") == [(1, 15.0, 2)]
    assert curve(points, "ft", "other_by_it") == [(1, 35.0, 2)]
    assert curve(points, "ft", "toxic_minus_other_by_it") == [(1, -20.0, 2)]
    assert curve(points, "it", "toxic_minus_other") == [(1, -2.0, 2)]


def test_the_cohort_is_the_same_prompts_in_every_variant_at_every_step():
    it = tables("it", [trace("a", [1, 2, 9]), trace("b", [3, 4, 9]), trace("c", [5, 6])], dict.fromkeys("abc", 0.1))
    own = [trace("a", [1, 2], "ft"), trace("b", [3, 4], "ft"), trace("c", [5], "ft")]
    ft = tables("ft", own, dict.fromkeys("abc", 0.1))
    assert long_everywhere({"it": it, "ft": ft}, CONFIG) == {("a", 0), ("b", 0)}
    points = entropy_curves(study(it=it, ft=ft), CONFIG)
    assert curve(points, "it", "cohort") == [(1, 2.0, 2), (2, 3.0, 2)]  # ends at cohort_min_tokens
    assert curve(points, "ft", "cohort") == [(1, 2.0, 2), (2, 3.0, 2)]


def test_curves_on_the_text_of_it_are_apart_from_own():
    it = tables("it", [trace("a", [1]), trace("b", [2])], {"a": 0.1, "b": 0.1})
    forced = [trace("a", [5], "ft", "it"), trace("b", [6], "ft", "it")]
    ft = tables("ft", forced, {"a": 0.1, "b": 0.1})
    points = entropy_curves(study(it=it, ft=ft), CONFIG)
    assert curve(points, "ft", "all", text="it") == [(1, 5.5, 2)]
    assert curve(points, "ft", "all") == []
    assert curve(points, "ft", "model_effect", text="it") == [(1, 4.0, 2)]  # ((5 - 1) + (6 - 2)) / 2
    assert curve(points, "ft", "model_effect") == []  # `it` has not read the text of `ft`


def test_only_test_completions_of_the_primary_split_count():
    it = tables("it", [trace(p, [1.0]) for p in "abc"], dict.fromkeys("ab", 0.1))
    others = [completion("c", ("polite",)), completion("d", split="val")]
    it = dataclasses.replace(it, completions=[*it.completions, *others])
    assert curve(entropy_curves(study(it=it), CONFIG), "it", "all") == [(1, 1.0, 2)]


@pytest.mark.parametrize("traces", [[], [trace("a", [])]])
def test_no_attributions_no_curve(traces):
    assert entropy_curves(study(it=tables("it", traces, {"a": 0.1})), CONFIG) == []


def test_training_curves_are_long_and_skip_missing_values():
    rl = dataclasses.replace(tables("rl", [], {}), history=[{"step": 3, "ppo/reward": 0.5, "ppo/val_toxicity": None}])
    found = training_curves(study(it=tables("it", [], {}), rl=rl))
    assert [(p.model, p.variant, p.metric, p.step, p.value) for p in found] == [("m", "rl", "ppo/reward", 3, 0.5)]
