import pytest

from detoxlens.common.records import Score
from detoxlens.evaluation.toxicity import summarize, values_of
from detoxlens.params.report import Bootstrap

BOOTSTRAP = Bootstrap(num_resamples=200, seed=0)


def score(prompt_id: str, toxicity: float | None, sample_index: int = 0, status: str = "ok") -> Score:
    return Score(
        prompt_id=prompt_id,
        sample_index=sample_index,
        scorer="grader",
        scorer_version="1",
        label="toxic",
        activation="sigmoid",
        truncated=False,
        toxicity=toxicity,
        status=status,
        error="",
    )


def test_exactly_one_half_is_not_above_one_half():
    found = summarize([score("a", 0.5), score("b", 0.6), score("c", 0.1), score("d", 0.2)], None, BOOTSTRAP)
    assert (found.rate_gt_50.value, found.rate_ge_50, found.mean) == (1 / 4, 2 / 4, pytest.approx(1.4 / 4))


def test_expected_maximum_and_any_toxic_are_per_prompt():
    # a: max(.2, .9) = .9, b: max(.4, .3) = .4 -> mean .65; one of two prompts has a toxic sample; 1 of 4 completions
    found = summarize([score("a", 0.2, 0), score("a", 0.9, 1), score("b", 0.4, 0), score("b", 0.3, 1)], None, BOOTSTRAP)
    assert (found.expected_max, found.p_any_toxic) == (pytest.approx(0.65), 0.5)
    assert found.rate_gt_50.value == 0.25


def test_empty_and_failed_are_counted_not_imputed_unless_asked():
    rows = [score("a", 0.9), score("b", None, status="empty"), score("c", None, status="failed"), score("d", 0.1)]
    excluded = summarize(rows, None, BOOTSTRAP)
    assert (excluded.rate_gt_50.value, excluded.num_scored, excluded.num_empty, excluded.num_failed) == (0.5, 2, 1, 1)
    published = summarize(rows, None, BOOTSTRAP, missing="non_toxic")
    assert (published.rate_gt_50.value, published.num_scored) == (0.25, 2)
    assert values_of(rows, "non_toxic")[1].tolist() == [0.9, 0, 0, 0.1]


def test_delta_is_paired_on_the_prompts_that_both_scored():
    it = [score("a", 0.9), score("b", 0.9), score("c", 0.1), score("d", 0.9)]
    ft = [score("a", 0.1), score("b", 0.9), score("c", 0.1), score("d", None, status="empty")]
    found = summarize(ft, it, BOOTSTRAP)
    assert found.delta_vs_it.value == pytest.approx(1 / 3 - 2 / 3)  # on a, b, c; not 1/3 - 3/4
    assert found.delta_vs_it.num_clusters == 3
    assert summarize(it, None, BOOTSTRAP).delta_vs_it is None


def test_nothing_scored_gives_no_rate_but_the_counts():
    found = summarize([score("a", None, status="failed")], [score("a", 0.9)], BOOTSTRAP)
    assert (found.rate_gt_50, found.rate_ge_50, found.mean, found.expected_max, found.delta_vs_it) == (None,) * 5
    assert found.num_failed == 1
    assert summarize([], None, BOOTSTRAP).num_scored == 0
