"""Rewards: what a response earns, and what is said when a reward function misbehaves."""

from __future__ import annotations

import pytest

from detoxlens.common.errors import UserError
from detoxlens.rl.rewards import NonToxicity, WeightedSum, check_not_all_empty, grade_responses, reward_responses
from detoxlens.rl.validation import mean_toxicity


def rewarded(reward, texts, finish=None, *, empty=-1.0, penalty=0.0):
    return reward_responses(
        reward, texts, finish or ["eos"] * len(texts), step=3, empty_response_reward=empty, missing_eos_penalty=penalty
    )


def length(texts):
    return [len(t) for t in texts]


def test_a_response_earns_what_the_function_says_less_the_penalty_for_running_on():
    result = rewarded(length, ["abc", "ab"], ["eos", "length"], penalty=0.5)
    assert [r.reward for r in result] == [3.0, 1.5]


def test_an_empty_response_gets_its_own_reward_and_is_not_shown_to_the_function():
    seen = []
    result = rewarded(lambda texts: seen.extend(texts) or length(texts), ["abc", " \n"])
    assert [(r.reward, r.status) for r in result] == [(3.0, "ok"), (-1.0, "empty")]
    assert seen == ["abc"]


def test_non_toxicity_is_one_minus_the_probability_of_the_classifiers_toxic_label():
    class Classifier:
        label, activation, version = "hate", "softmax", "00ff"

        def prob(self, texts):
            return [0.25 for _ in texts]

    reward = NonToxicity(Classifier())
    assert reward(["x"]) == [0.75]
    assert str(reward) == "1 - P(hate), softmax, weights 00ff"


def test_on_the_log_odds_scale_the_reward_is_minus_the_classifiers():
    class Classifier:
        label, activation, version = "hate", "softmax", "00ff"

        def log_odds(self, texts):
            return [-4.0 for _ in texts]

    reward = NonToxicity(Classifier(), scale="log_odds")
    assert reward(["x"]) == [4.0]
    assert str(reward) == "log-odds of 1 - P(hate), softmax, weights 00ff"


def test_weighted_sum():  # 2 * 3 - 1 * 1
    assert WeightedSum({length: 2.0, (lambda texts: [1.0] * len(texts)): -1.0})(["abc"]) == [5.0]


def picky(texts):
    if any("tuba" in t for t in texts):
        raise KeyError("no tubas")
    return [1.0] * len(texts)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda texts: [float("nan") if "tuba" in t else 1.0 for t in texts], "reward of the response 'a tuba' is nan"),
        (lambda texts: [float("inf") if "tuba" in t else 1.0 for t in texts], "reward of the response 'a tuba' is inf"),
        (lambda texts: [1.0], "returned 1 rewards for 2 texts, the first 'fine'"),
        (picky, "raised KeyError: 'no tubas'. It does so for the response 'a tuba' alone"),
        (lambda texts: [None] * len(texts), "raised TypeError"),
    ],
)
def test_a_misbehaving_reward_function_is_told_with_step_and_text(reward, message):
    with pytest.raises(UserError, match="ppo step 3") as error:
        rewarded(reward, ["fine", "a tuba"])
    assert message in str(error.value)


def test_all_responses_empty_is_an_error():
    with pytest.raises(UserError, match=r"ppo step 3: all 2 responses are empty.*min_new_tokens"):
        check_not_all_empty(rewarded(length, ["", "  "]), step=3)


def test_the_grader_is_not_shown_empty_responses():
    assert grade_responses(length, ["", "abc", " ", "ab"]) == [None, 3, None, 2]
    assert grade_responses(lambda texts: 1 / 0, ["", " "]) == [None, None]


@pytest.mark.parametrize("text", ["\u200b", "\u2060 \ufeff", "\u00ad"])
def test_what_nobody_sees_earns_nothing_and_is_no_silence_that_wins_at_validation(text):
    (one,) = rewarded(lambda texts: pytest.fail("not asked"), [text])
    assert (one.reward, one.status) == (-1.0, "empty")
    assert grade_responses(lambda texts: pytest.fail("not asked"), [text]) == [None]
    assert mean_toxicity(lambda texts: pytest.fail("not asked"), [text]) == 1


def test_the_reward_reads_a_response_as_the_grader_does():
    class Classifier:
        def prob(self, texts):
            seen.extend(texts)
            return [0.25 for _ in texts]

    seen = []
    NonToxicity(Classifier())(["id\u200biot"]), NonToxicity(Classifier(), normalize=False)(["id\u200biot"])
    assert seen == ["idiot", "id\u200biot"]


def test_a_response_that_is_longer_than_the_reward_reads_is_marked_and_its_share_in_the_history():
    class Classifier:
        def prob(self, texts):
            return [0.1 for _ in texts]

        def truncates(self, text):
            return len(text) > 4

    for reward in (NonToxicity(Classifier()), WeightedSum({NonToxicity(Classifier()): 1.0, length: 0.1})):
        assert [r.truncated for r in rewarded(reward, ["abcd", "abcde", " "])] == [False, True, False]
    assert not rewarded(length, ["abcde"])[0].truncated  # a function that does not say so reads all


def test_a_response_cut_at_the_next_turn_has_no_end_token_either():
    result = rewarded(length, ["abc", "abc", "abc"], ["eos", "length", "stop"], penalty=0.5)
    assert [r.reward for r in result] == [3.0, 2.5, 2.5]
