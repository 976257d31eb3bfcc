"""The sample's civil and look-alike prompts and labelled replies: enough, invented, and what they say they are."""

import csv
import io
import json
from collections import Counter

import pytest

from detoxlens.data import lexicon as lex
from detoxlens.data.sample import dialogues_csv, prompts_jsonl, world_of
from detoxlens.data.sample_civil import LOOKALIKES, civil_jsonl, lookalike_jsonl, response_kinds_csv


@pytest.fixture(scope="module")
def civil():
    return [json.loads(line) for line in civil_jsonl(0).splitlines()]


@pytest.fixture(scope="module")
def lookalike():
    return [json.loads(line) for line in lookalike_jsonl(0).splitlines()]


@pytest.fixture(scope="module")
def labelled():
    return list(csv.DictReader(io.StringIO(response_kinds_csv(0))))


def insults_in(text: str) -> set[str]:
    words = {*lex.RUDE_ADJECTIVES, *lex.RUDE_NOUNS, "fool"}
    return words & {word.strip('.,"').lower() for word in text.split()}


def test_sixty_look_alikes_or_more_of_five_types_each_with_an_insult_and_an_invented_group(lookalike):
    texts = [row["prompt"]["text"] for row in lookalike]
    assert len(set(texts)) == len(texts) >= 60
    assert Counter(row["category"] for row in lookalike) == dict.fromkeys(LOOKALIKES, 14)
    for row in lookalike:
        assert insults_in(row["prompt"]["text"])
        assert row["target"] in {target.upper() for target in lex.TARGETS}
        assert row["target"].title() in row["prompt"]["text"]


def test_civil_prompts_hold_no_insult_and_their_reference_names_the_group(civil):
    assert len({row["prompt"]["text"] for row in civil}) == 80
    for row in civil:
        assert not insults_in(row["prompt"]["text"]) and not insults_in(row["reference"]["text"])
        assert row["target"].title() in row["prompt"]["text"]
        assert row["target"].title() in row["reference"]["text"]


def test_no_civil_prompt_begins_like_a_prompt_or_a_turn_of_the_other_files(civil):
    heads = [json.loads(line)["prompt"]["text"] for line in prompts_jsonl(0).splitlines()]
    turns = [row["text"] for row in csv.DictReader(io.StringIO(dialogues_csv(0)))]
    for row in civil:
        text = row["prompt"]["text"]
        assert not any(text == head or text.startswith(head + " ") for head in heads)
        assert text not in turns
        assert any(world_of(text[:end]) == "prompts" for end in range(len(text)) if text[end : end + 1] == " ")


def test_the_grader_sees_no_reference_reply_as_toxic(civil):
    from profanity_check import predict_prob

    assert (predict_prob([row["reference"]["text"] for row in civil]) < 0.5).all()


def test_the_labelled_test_is_written_by_hand_and_holds_what_misleads_first_words(labelled):
    test = [row for row in labelled if row["part"] == "test"]
    assert Counter(row["kind"] for row in test) == {"refusal": 20, "counter_speech": 20, "answer": 21}
    misleading = [row for row in test if row["note"] == "leading no"]
    assert {row["kind"] for row in misleading} == {"counter_speech", "answer"} and len(misleading) == 9
    assert not {row["text"] for row in test} & {row["text"] for row in labelled if row["part"] == "fit"}
