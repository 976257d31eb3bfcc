"""Pairs: which answer is chosen, which margin counts, where contexts are cut, and what is refused."""

import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.data.templates import encode_dialogue, encode_prompt
from detoxlens.models.tiny import train_tokenizer
from detoxlens.params.preference import PairsConfig
from detoxlens.preference.answers import Answer
from detoxlens.preference.pairs import Exchange, exchanges, make_pairs
from tests.sft.test_train import TEMPLATE

CONFIG = PairsConfig(source="best_of_n", num_samples=3, min_margin=0.25, max_context_turns=1)
WRITTEN = CONFIG.model_copy(update={"source": "counter_narrative"})


def answer(text, toxicity, seed=0):
    return Answer(token_ids=(len(text),), text=text, toxicity=toxicity, seed=seed)


def exchange(reply="They are kind."):
    return Exchange(turns=("Zorgons are slow.",), reply=reply, prompt_ids=(4, 8), reply_ids=(9, 0))


def judge(texts):
    return [None if not text else 0.5 if "kind" in text else 0.9 for text in texts]


def test_best_of_n_takes_the_least_and_the_most_toxic_of_the_same_answers():
    own = [answer("meh", 0.4, 1), answer("fool", 0.9, 2), answer("hello", 0.1, 3), answer("", None, 4)]
    (pair,) = make_pairs([exchange()], [own], judge, CONFIG, split="train")
    assert (pair.chosen, pair.chosen_toxicity, pair.chosen_seed) == ("hello", 0.1, 3)
    assert (pair.rejected, pair.rejected_toxicity, pair.rejected_seed) == ("fool", 0.9, 2)
    assert (pair.prompt, pair.prompt_ids, pair.chosen_ids) == ("Zorgons are slow.", (4, 8), (5,))


def test_at_a_tie_the_first_answer_counts():
    own = [answer("a", 0.1, 1), answer("b", 0.9, 2), answer("c", 0.9, 3), answer("d", 0.1, 4)]
    (pair,) = make_pairs([exchange()], [own], judge, CONFIG, split="train")
    assert (pair.chosen_seed, pair.rejected_seed) == (1, 2)


def test_a_counter_narrative_is_preferred_to_bases_most_toxic_answer():
    own = [answer("fine", 0.1, 1), answer("fool", 0.8, 2)]
    (pair,) = make_pairs([exchange()], [own], judge, WRITTEN, split="val")
    assert (pair.chosen, pair.chosen_ids, pair.chosen_seed, pair.chosen_toxicity) == (
        "They are kind.",
        (9, 0),
        None,
        0.5,
    )
    assert (pair.rejected, pair.rejected_seed, pair.split) == ("fool", 2, "val")


def test_only_a_margin_above_the_least_counts():
    own = [[answer("a", 0.25), answer("b", 0.5)], [answer("a", 0.25), answer("b", 0.75)]]  # .25 is not above .25
    pairs = make_pairs([exchange(), exchange()], own, judge, CONFIG, split="train")
    assert [p.rejected_toxicity for p in pairs] == [0.75]
    with pytest.raises(UserError, match=r"min_margin=0.25: none of the 1 hater turns .* widest margin is 0.25\. Lower"):
        make_pairs([exchange()], own[:1], judge, CONFIG, split="train")


def test_without_a_written_reply_the_other_source_is_named():
    with pytest.raises(UserError, match=r"none of the 1 hater turns .* has a written reply.*best_of_n"):
        make_pairs([exchange(reply="")], [[answer("fool", 0.9)]], judge, WRITTEN, split="train")


DIALOGUES = [
    Dialogue(dialogue_id="0", target="", source="", split="train", turns=("a", "b", "c", "d", "e", "f")),
    Dialogue(dialogue_id="1", target="", source="", split="train", turns=("a", "x", "y", "z")),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["<human>: a b c d e f x y z\n<bot>: a b c"] * 4, 300)


def found(tokenizer, **more):
    more = {"longest_prompt": 100, "max_length": 100} | more
    config = WRITTEN.model_copy(update={key: more.pop(key) for key in list(more) if key.startswith("max_con")})
    return exchanges(DIALOGUES, tokenizer, TEMPLATE, config, **more)


def test_every_hater_turn_is_answered_once_with_what_stands_before_it(tokenizer):
    single, _ = found(tokenizer)
    assert [(e.turns, e.reply) for e in single] == [(("a",), "b"), (("c",), "d"), (("e",), "f"), (("y",), "z")]
    for most in (3, 4):  # a context begins with the hater, so a fourth turn changes nothing
        longer, _ = found(tokenizer, max_context_turns=most)
        assert [e.turns for e in longer] == [("a",), ("a", "b", "c"), ("c", "d", "e"), ("a", "x", "y")]
    for e in (*single, *longer):
        assert e.prompt_ids == encode_prompt(tokenizer, TEMPLATE, e.turns).ids
        assert [*e.prompt_ids, *e.reply_ids] == encode_dialogue(tokenizer, TEMPLATE, [*e.turns, e.reply])[0]
        assert e.reply_ids[-1] == tokenizer.eos_token_id


def test_long_contexts_are_left_out_and_counted_and_long_replies_are_cut(tokenizer):
    whole, _ = found(tokenizer, max_context_turns=3)
    longest = len(whole[0].prompt_ids)
    assert [len(e.prompt_ids) > longest for e in whole] == [False, True, True, True]
    kept, num_too_long = found(tokenizer, max_context_turns=3, longest_prompt=longest, max_length=longest + 1)
    assert ([e.turns for e in kept], num_too_long) == ([("a",)], 3)
    assert kept[0].reply_ids == whole[0].reply_ids[:1]


def test_a_sample_of_contexts_is_the_same_each_time_and_part_of_a_larger_one(tokenizer):
    two, three = (found(tokenizer, max_contexts=n)[0] for n in (2, 3))
    assert (len(two), len(three)) == (2, 3) and set(two) <= set(three) and two == found(tokenizer, max_contexts=2)[0]
