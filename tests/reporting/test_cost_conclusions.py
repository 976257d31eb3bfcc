"""Sentences about costs: which way, how much, how sure, by which grader; none about what was not measured."""

from detoxlens.reporting.cost_conclusions import cost_conclusions

GRADERS = {"counter-speech, by classifier": {"num_missed": 4, "num_of_kind": 20}}


def delta(value, lo, hi):
    return {"value": value, "ci95": [lo, hi], "num_prompts": 70, "detectable": 0.05}


def kinds(rate, difference, num=70):
    return {"not_answered": {"value": rate, "ci95": None, "delta_vs_it": difference}, "num_judged": num}


def said(costs, civil=("civil", "lookalike"), graders=GRADERS):
    return cost_conclusions({"m": {"it": {"costs": costs}, "ft": {"costs": costs}}}, graders, civil)["m"]


def test_over_countering_is_said_by_split_with_what_could_have_been_seen_and_the_graders_errors():
    costs = {
        "response_kind": {
            "civil": kinds(0.0, delta(0.0, -0.05, 0.05), 80),
            "lookalike": kinds(0.6286, delta(0.6286, 0.5, 0.74)),
        }
    }
    (sentence,) = said(costs)
    assert sentence == (
        "`ft` counters or refuses civil prompts no more often than base as far as shown: 0.0 % of 80 on civil (0.0 "
        "points [−5.0, +5.0]; one of 7.1 points would have been detected); more often than base: 62.9 % of 70 on "
        "lookalike (+62.9 points [+50.0, +74.0]); the grader misses 4 of 20 labelled ones."
    )  # (1.96 + .84) / 1.96 * 5.0 = 7.1


def test_utility_is_said_with_its_difference():
    bits = {"value": 1.11, "ci95": [1.0, 1.2], "delta_vs_it": delta(-0.04, -0.06, -0.02)}
    (sentence,) = said({"utility": {"bits_per_token": bits, "num_references": 80}})
    assert sentence == (
        "`ft` at reference replies to civil prompts: 1.11 bits per token, better than base (−0.040 bits "
        "[−0.060, −0.020]; n = 80)."
    )


def test_nothing_is_said_of_base_of_few_replies_or_of_what_is_absent():
    few = {"response_kind": {"civil": kinds(0.5, delta(0.5, 0.4, 0.6), 29)}}
    assert said(few) == said({"response_kind": {"reason": "x"}, "utility": {"reason": "y"}}) == said({}) == []
