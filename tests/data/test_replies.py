"""What a model wrote as text: end tokens off, the human's next turn off, one string for reward, grader and table."""

from __future__ import annotations

import pytest

from detoxlens.common.records import Prompt
from detoxlens.data.replies import reply_of, stops_of
from detoxlens.data.templates import next_turn_marks, turn_end_ids
from detoxlens.models.generation import Sampled
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.models import ChatTemplate, TemplateConfig
from detoxlens.pipeline.stages.generate import completion_of, encode_rows
from detoxlens.rl.rollout import response_of
from tests.data.tokenizers import CHAT_TEMPLATES, byte_bpe, llama

PAPER = TemplateConfig(user="<human>: {text}.\n", bot="<bot>: ", reply="{text}", end="\n", eos_after_reply=False)
CONFIG = GenerationConfig(
    max_new_tokens=9,
    min_new_tokens=0,
    temperature=1,
    top_k=0,
    top_p=1,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=1,
)


def written(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def chat_tokenizer():
    tokenizer = byte_bpe()
    tokenizer.chat_template = CHAT_TEMPLATES["system allowed"]
    return tokenizer


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("They are calm.\n<human>: you fool.\n<bot>: Sorry.", "They are calm."),
        ("They are calm. <human>: you fool.", "They are calm."),
        ("<human>: you fool.", ""),
        ("They are calm.\n", "They are calm."),
    ],
)
def test_a_reply_ends_where_the_next_turn_begins(text, kept):
    tokenizer = byte_bpe()
    ids = written(tokenizer, text)
    reply = reply_of(tokenizer, ids, "length", stop=next_turn_marks(tokenizer, PAPER))
    assert reply.text == kept
    assert reply.finish_reason == ("stop" if "<human>" in text else "length")
    assert tokenizer.decode(reply.token_ids).strip() == kept and reply.token_ids == tuple(ids[: len(reply.token_ids)])


def test_a_next_turn_that_begins_with_control_tokens_is_seen_too():
    tokenizer = chat_tokenizer()
    ids = written(tokenizer, "They are calm\n<|turn|>user\nyou fool")
    reply = reply_of(tokenizer, ids, "length", stop=next_turn_marks(tokenizer, ChatTemplate()))
    assert (reply.text, reply.finish_reason) == ("They are calm", "stop")


def test_a_mark_that_could_be_a_word_ends_a_reply_at_the_beginning_of_a_line_alone():
    template = PAPER.model_copy(update={"user": "Q: {text}\n"})
    tokenizer = byte_bpe()
    stop = next_turn_marks(tokenizer, template)
    assert reply_of(tokenizer, written(tokenizer, "See FAQ: yes"), "length", stop=stop).text == "See FAQ: yes"
    assert reply_of(tokenizer, written(tokenizer, "Yes\nQ: no"), "length", stop=stop).text == "Yes"
    assert reply_of(tokenizer, written(tokenizer, "Q: no"), "length", stop=stop).text == ""


def test_stops_are_the_next_turn_or_what_params_list():
    tokenizer = byte_bpe()
    assert stops_of(CONFIG, tokenizer, PAPER) == ("<human>:",)
    assert stops_of(CONFIG.model_copy(update={"stop": ("END",)}), tokenizer, PAPER) == ("END",)
    assert GenerationConfig.model_validate(CONFIG.model_dump() | {"stop": []}).stop == ()


def test_what_spells_a_special_token_in_letters_stays_and_the_token_goes():
    tokenizer = byte_bpe()
    spelt = [*written(tokenizer, "calm <"), *written(tokenizer, "/s> and late")]
    assert reply_of(tokenizer, [*spelt, tokenizer.eos_token_id], "eos").text == "calm </s> and late"
    assert reply_of(tokenizer, [*spelt, tokenizer.pad_token_id], "length").text == "calm </s> and late"


@pytest.mark.parametrize("make", [byte_bpe, llama])
@pytest.mark.parametrize("text", [" They are calm ", "They are calm.\n<human>: you fool", "\u200b"])
def test_reward_and_table_read_the_same_string(make, text):
    tokenizer = make()
    prompt = Prompt(prompt_id="p", split="test", filters=("all",), text="Ferries are slow", toxicity=0.0)
    (row,) = encode_rows([prompt], tokenizer, PAPER, num_samples=1, seed=0)
    ids = tuple(written(tokenizer, text))
    config = CONFIG.model_copy(update={"stop": stops_of(CONFIG, tokenizer, PAPER)})
    for reason, sampled in (("length", ids), ("eos", (*ids, tokenizer.eos_token_id))):
        rewarded = response_of(tokenizer, row.encoded.ids, sampled, reason, config)
        graded = completion_of(row, Sampled(sampled, reason), tokenizer)
        assert (rewarded.text, rewarded.finish_reason) == (graded.completion, graded.finish_reason)


def test_a_response_that_is_all_next_turn_keeps_a_token_to_learn_from():
    tokenizer = byte_bpe()
    ids = written(tokenizer, "<human>: you fool")
    config = CONFIG.model_copy(update={"stop": ("<human>:",)})
    response = response_of(tokenizer, (1,), ids, "length", config)
    assert (response.token_ids, response.text, response.finish_reason) == ((ids[0],), "", "stop")


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (ChatTemplate(), ["<|over|>"]),
        (
            TemplateConfig(user="<|turn|>{text}", bot="", reply="{text}", end="<|over|>\n", eos_after_reply=False),
            ["<|over|>"],
        ),
        (PAPER, []),
    ],
)
def test_the_token_that_ends_a_turn_in_the_template(template, ends):
    tokenizer = chat_tokenizer()
    assert tokenizer.convert_ids_to_tokens(turn_end_ids(tokenizer, template)) == ends
