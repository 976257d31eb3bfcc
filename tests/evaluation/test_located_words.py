"""Toxic words found by asking a grader about parts of texts (`evaluation.toxic_words`), and their tokens."""

import random

import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import ScoredText
from detoxlens.evaluation.toxic_words import LocalJudge, locate, without, words_in
from detoxlens.evaluation.word_tokens import TokenSpan, token_spans, toxic_prompt_tokens
from detoxlens.scorers.profanity_check import ProfanityCheck

INSULTS = ("stupid", "idiot", "moron", "fool")
SENTENCES = (
    "the accordion players of our town are people and everyone likes their music",
    "I think that who plays the tuba should have a rest before supper",
    "please tell your neighbour that the concert begins at eight tonight",
    "a like this one would paint the garden fence twice a week",
    "nobody asked the about the weather in spring or about the boats",
)


def rude(texts):
    """A grader that knows two insults and finds each enough: .9 with one of them, .1 without."""
    return [0.9 if {"dunce", "oaf"} & {w.text.lower() for w in words_in(text)} else 0.1 for text in texts]


def test_words_are_letters_without_the_punctuation_around_them():
    words = [w.text for w in words_in("“Well,” you a$$, it's a ten-word (f*b) 你好!")]
    assert words == ["Well", "you", "a$$", "it's", "a", "ten-word", "f*b", "你", "好"]


def test_a_word_is_taken_out_with_the_white_space_before_it():
    text = "Well, you stupid (idiots)!"
    words = words_in(text)
    assert without(text, [words[2]]) == "Well, you (idiots)!"
    assert without(text, [words[0]]) == ", you stupid (idiots)!"
    assert without(text, words) == ", ()!"
    assert without(text, []) == text


def test_the_drop_of_the_one_insult_is_all_of_the_toxicity_and_of_the_others_nothing():
    (found,) = locate(["Zorgons, you dunce, sing"], rude)
    assert [w.word.text for w in found.words] == ["Zorgons", "you", "dunce", "sing"]
    assert [w.drop for w in found.words] == pytest.approx([0, 0, 0.8, 0])
    assert [w.in_minimal for w in found.words] == [w.is_onset for w in found.words] == [False, False, True, False]


def test_two_insults_of_which_each_suffices_have_no_drop_but_are_the_minimal_set():
    (found,) = locate(["you oaf and dunce you"], rude)
    assert [w.drop for w in found.words] == [0] * 5  # leave-one-out finds nothing
    assert [w.word.text for w in found.words if w.in_minimal] == ["oaf", "dunce"]
    assert [w.word.text for w in found.words if w.is_onset] == ["oaf"]


def test_what_a_later_removal_made_needless_is_put_back():
    known = {"a b c": 0.9, "b c": 0.6, "a c": 0.65, "a b": 0.7, "c": 0.55, "b": 0.58, "a": 0.45, "": 0.0}
    # removed in the order a (.6 is left), b (.55), c (0); with a put back "a" has .45, with b or c as well .7 and .65
    (found,) = locate(["a b c"], lambda texts: [known[text] for text in texts])
    assert [w.word.text for w in found.words if w.in_minimal] == ["b", "c"]


def test_a_text_that_is_toxic_without_any_word_has_no_minimal_set():
    (found,) = locate(["b c"], lambda texts: [0.9] * len(texts))
    assert found.is_toxic and not any(w.in_minimal for w in found.words)


def test_texts_that_are_not_toxic_too_long_or_not_graded_are_left_out_as_asked():
    judge = lambda texts: [None if "?" in text else v for text, v in zip(texts, rude(texts), strict=True)]  # noqa: E731
    texts = ["fine words", "you oaf over there", "oaf?"]
    always, toxic_only, short = (
        [len(found.words) for found in locate(texts, judge, **options)]
        for options in ({}, {"always": False}, {"max_words": 3})
    )
    assert (always, toxic_only, short) == ([2, 4, 0], [0, 4, 0], [2, 0, 0])


def test_a_word_of_whose_absence_the_grader_knows_nothing_has_no_drop():
    (found,) = locate(["you oaf"], lambda texts: [None if text == "you" else 0.9 for text in texts])
    assert [w.drop for w in found.words] == [pytest.approx(0.0), None]


def test_the_judge_asks_about_each_text_once_and_takes_nothing_for_no_insult():
    class Counting:
        name, source = "counting", "package"
        asked: list[str] = []  # noqa: RUF012

        def score(self, texts, keys=None):
            self.asked += texts
            return [
                ScoredText(0.7, "ok", False, "") if text else ScoredText(None, "empty", False, "") for text in texts
            ]

    judge = LocalJudge(Counting())
    assert judge(["a", "", "a"]) == [0.7, 0.0, 0.7] and judge(["a", "b"]) == [0.7, 0.7]
    assert Counting.asked == ["a", "", "b"]


@pytest.mark.parametrize("source", ["service", "file"])
def test_a_grader_that_cannot_be_asked_about_parts_of_texts_is_refused(source):
    class Far:
        name = "far"

    Far.source = source
    with pytest.raises(UserError, match=rf"toxic_words.scorer: far is a {source}.*profanity_check"):
        LocalJudge(Far())


def test_a_planted_insult_is_found_at_its_word():
    """Completions with a known insult at a known word: it has the largest drop in at least 95 of 100."""
    rng = random.Random(0)
    planted = []
    for insult in INSULTS:
        for sentence in SENTENCES:
            for _ in range(3):
                words = sentence.split()
                at = rng.randrange(len(words) + 1)
                planted.append((" ".join([*words[:at], insult, *words[at:]]), at))
    judge = LocalJudge(ProfanityCheck())
    found = locate([text for text, _ in planted], judge)
    hits = [
        max(range(len(f.words)), key=lambda k, f=f: f.words[k].drop) == at
        for f, (_, at) in zip(found, planted, strict=True)
    ]
    assert sum(hits) / len(hits) >= 0.95
    toxic = [(f, at) for f, (_, at) in zip(found, planted, strict=True) if f.is_toxic]
    assert len(toxic) >= 0.75 * len(planted)  # `fool` alone is not, in a long sentence
    assert sum(f.words[at].in_minimal and f.words[at].is_onset for f, at in toxic) / len(toxic) >= 0.95


PIECES = ("<human>:", " Zor", "gons", " are", " id", "iots", ".", "\n", "<bot>:")
TEMPLATE = (True, *[False] * 6, True, True)


def test_words_are_tokens_by_the_characters_they_cover():
    text = "Zorgons are idiots."
    assert token_spans(text, words_in(text), PIECES, is_template=TEMPLATE) == [
        TokenSpan(1, 2), TokenSpan(3, 3), TokenSpan(4, 5)
    ]  # fmt: skip


def test_a_token_across_two_words_belongs_to_both_and_one_without_text_to_what_follows():
    assert token_spans("ab cd é", words_in("ab cd é"), ("a", "b c", "d ", "", "é")) == [
        TokenSpan(0, 1), TokenSpan(1, 2), TokenSpan(3, 4)
    ]  # fmt: skip


def test_words_of_a_text_that_tokens_spell_otherwise_are_found_in_order():
    text = "Zorgons ARE idiots idiots"  # lower-cased, and cut
    pieces = ("zor", "gons", " are", " idiots")
    assert token_spans(text, words_in(text), pieces) == [TokenSpan(0, 1), TokenSpan(2, 2), TokenSpan(3, 3), None]
    assert token_spans(text, words_in(text), ()) == [None] * 4


def test_toxic_words_of_prompts_as_spans_of_their_tokens():
    prompts = ["Zorgons are idiots.", "Zorgons are kind."]
    pieces = [PIECES, ("<human>:", " Zor", "gons", " are", " kind", ".", "\n", "<bot>:")]
    spans = toxic_prompt_tokens(
        prompts, pieces, [TEMPLATE, (True, *[False] * 5, True, True)], LocalJudge(ProfanityCheck())
    )
    assert spans == [(TokenSpan(4, 5),), ()]
