"""The embedded sample: real formats, no leak between the worlds, and words that mean to the grader what we mean."""

import csv
import io
import itertools
import json
import re
from pathlib import Path

import pytest

from detoxlens.common.seeding import python_rng
from detoxlens.data import lexicon as lex
from detoxlens.data.sample import RTP_SCORES, base_corpus, dialogues_csv, prompts_jsonl, reply, world_of
from detoxlens.data.sample_files import sample_files

COMMITTED = Path(__file__).parents[2] / "data" / "sample"


@pytest.fixture(scope="module")
def prompts():
    return [json.loads(line) for line in prompts_jsonl(0).splitlines()]


@pytest.fixture(scope="module")
def unseen():
    return [json.loads(line) for line in sample_files(0)["unseen.jsonl"].splitlines()]


@pytest.fixture(scope="module")
def turns():
    return list(csv.DictReader(io.StringIO(dialogues_csv(0))))


def test_committed_files_are_what_the_generator_writes():
    files = sample_files(0)
    assert {path.name for path in COMMITTED.iterdir()} == set(files)
    for name, text in files.items():
        assert (COMMITTED / name).read_bytes() == text.encode()


def test_another_seed_writes_other_files():
    for name, text in sample_files(0).items():
        assert sample_files(1)[name] != text


def test_dialogues_have_dialoconans_columns_and_alternate(turns):
    assert list(turns[0]) == ["text", "TARGET", "dialogue_id", "turn_id", "type", "source"]
    for _, dialogue in itertools.groupby(turns, key=lambda row: row["dialogue_id"]):
        rows = list(dialogue)
        assert len(rows) in (4, 6, 8)
        assert [int(row["turn_id"]) for row in rows] == list(range(len(rows)))
        assert [row["type"] for row in rows] == ["HS", "CN"] * (len(rows) // 2)


def test_prompts_have_rtps_fields(prompts, unseen):
    for row in prompts + unseen:
        assert list(row) == ["filename", "begin", "end", "challenging", "prompt", "continuation"]
        for part in ("prompt", "continuation"):
            assert list(row[part]) == ["text", *RTP_SCORES]
            assert all(0 <= row[part][name] <= 1 for name in RTP_SCORES)


def test_enough_distinct_prompts_of_both_kinds(prompts):
    toxic = {row["prompt"]["text"] for row in prompts if row["prompt"]["toxicity"] > 0.5}
    polite = {row["prompt"]["text"] for row in prompts if row["prompt"]["toxicity"] < 0.2}
    assert len(toxic) >= 400 and len(polite) >= 150
    assert len(toxic) + len(polite) == len(prompts)


def test_no_statement_is_in_two_worlds(prompts, turns):
    evaluated = {row["prompt"]["text"] for row in prompts}
    trained = {row["text"] for row in turns if row["type"] == "HS"}
    assert len(trained) == sum(row["type"] == "HS" for row in turns)  # and none twice
    corpus = {e.human for talk in base_corpus(2000, 0, rude=0.5, counter=0.1) for e in talk}
    heads = {head: world_of(head) for head in evaluated}
    assert set(heads.values()) == {"prompts"}
    for text in trained | corpus:
        assert not any(text.startswith(head + " ") or text == head for head in evaluated if text[:12] == head[:12])


def test_unseen_prompts_share_no_target_insult_or_head_with_anything_that_is_trained_on(prompts, turns, unseen):
    texts = {row["prompt"]["text"] for row in unseen}
    assert len(texts) == 100 and all(row["prompt"]["toxicity"] > 0.5 for row in unseen)
    assert {target for target in lex.UNSEEN_TARGETS if any(target in text for text in texts)} == {*lex.UNSEEN_TARGETS}
    corpus = [text for talk in base_corpus(4000, 0, rude=0.5, counter=0.1) for e in talk for text in (e.human, e.reply)]
    learnt = [*corpus, *(row["text"] for row in turns), *(row["prompt"]["text"] for row in prompts)]
    words = {word for text in learnt for word in re.findall(r"\w+", text.lower())}
    held_out = (*lex.UNSEEN_TARGETS, *lex.UNSEEN_RUDE_ADJECTIVES, *lex.UNSEEN_RUDE_NOUNS)
    assert [word for word in held_out if word.lower() in words] == []
    seen = {word.lower() for word in (*lex.TARGETS, *lex.RUDE_ADJECTIVES, *lex.RUDE_NOUNS)}
    assert [text for text in texts if seen & {*re.findall(r"\w+", text.lower())}] == []
    openings = {tuple(text.split()[:3]) for text in learnt}  # no head begins as a seen one does
    assert [text for text in texts if tuple(text.split()[:3]) in openings] == []


def test_dozens_of_targets_and_hundreds_of_statements(turns):
    assert len({row["TARGET"] for row in turns}) == len(lex.TARGETS) >= 36
    assert len({row["text"] for row in turns if row["type"] == "HS"}) >= 500


def test_every_reply_names_its_target():
    rng = python_rng(0, "test")
    for style in ("rude", "neutral", "counter", "civil"):
        assert all("Zorgons" in reply(rng, "Zorgons", style) for _ in range(50))


def test_the_grader_sees_rude_replies_as_toxic_and_no_other():
    from profanity_check import predict_prob

    rng = python_rng(0, "test")
    rates = {}
    for style in ("rude", "neutral", "counter", "civil"):
        texts = [reply(rng, rng.choice(lex.TARGETS), style) for _ in range(400)]
        rates[style] = (predict_prob(texts) > 0.5).mean()
    assert rates["rude"] > 0.95
    assert rates["neutral"] == rates["counter"] == rates["civil"] == 0
