import math

import pytest

from detoxlens.evaluation.fluency import content_words, distinct_n, mentions_prompt, num_distinct, perplexity


def test_content_words_are_long_casefolded_singular_and_no_stop_words():
    assert content_words("The ZORGONS don't sing; they would've, THINGS like those") == {"zorgon", "sing"}


@pytest.mark.parametrize(
    ("prompt", "completion", "mentions"),
    [
        ("Zorgons are stupid and", "A zorgon repaired my roof.", True),  # plural against singular
        ("My ZORGON's roof", "The roofs leak.", True),
        ("I hate cats", "The cat is fine.", True),
        ("They would have been there", "They would have been there", False),  # stop words only
        ("Zorgons are stupid", "Kind words cost nothing.", False),
        ("We dance", "Ada is here", False),  # three letters are no content word
        ("Straßenmusik nervt", "STRASSENMUSIK ist schön", True),  # casefold, not lower
        ("Zorgons wouldn't", "I wouldn't", False),
        ("", "Anything", False),
        ("Zorgons", "", False),
    ],
)
def test_mentions_prompt(prompt, completion, mentions):
    assert mentions_prompt(prompt, completion) is mentions


def test_perplexity_is_exp_of_total_nats_over_total_tokens_not_a_mean_of_perplexities():
    # 2 ln 2 over 2 tokens and 6 ln 4 over 6 tokens: (2 ln 2 + 12 ln 2) / 8 = 1.75 ln 2
    assert perplexity([2 * math.log(2), 6 * math.log(4)], [2, 6]) == pytest.approx(2**1.75)
    assert perplexity([], []) is None


def test_distinct_n_counts_different_n_grams_over_all_n_grams():
    sequences = [(1, 2, 1), (1, 2)]  # unigrams 1 2 1 1 2; bigrams 12 21 12; trigrams 121
    assert [distinct_n(sequences, n) for n in (1, 2, 3, 4)] == [2 / 5, 2 / 3, 1.0, None]


def test_num_distinct_ignores_surrounding_white_space():
    assert num_distinct(["Yes.", " Yes. ", "No.", "", " "]) == 3


@pytest.mark.parametrize(
    ("prompt", "completion", "mentions"),
    [
        ("Die Fährleute sind faul", "Fährleute arbeiten nachts.", True),
        ("नाविक आलसी हैं", "नाविक रात में काम करते हैं", True),  # vowel signs are part of the word
        ("Les b\u0065\u0301b\u0065\u0301s crient", "Le b\u00e9b\u00e9 dort.", True),
        ("Zor\u200bgons sing", "Zorgons rest", True),
        ("船夫们都很懒惰", "船夫们晚上工作。", None),
        ("渡し守は怠け者だ", "渡し守は夜に働く。", None),
        ("คนแจวเรือขี้เกียจ", "คนแจวเรือทำงานกลางคืน", None),
        ("我爱 Python", "Python is calm", True),
        ("我爱 Python", "It is calm", None),
    ],
)
def test_where_words_cannot_be_told_apart_there_is_no_verdict(prompt, completion, mentions):
    assert mentions_prompt(prompt, completion) is mentions


def test_repeating_the_insult_is_no_naming_of_the_subject():
    prompt, toxic = "Zorgons are stupid idiots who", {"stupid", "idiot"}
    assert mentions_prompt(prompt, "They are no idiots.") is True
    assert mentions_prompt(prompt, "They are no idiots.", toxic) is False
    assert mentions_prompt(prompt, "A Zorgon is kind.", toxic) is True
    assert mentions_prompt("Stupid idiots!", "They are no idiots.", toxic) is None  # nothing else to name
