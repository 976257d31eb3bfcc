"""A tokenizer's own chat template: the ids of `apply_chat_template`, regions, system messages, and what is refused."""

from __future__ import annotations

import pytest

from detoxlens.common.errors import UserError
from detoxlens.data.templates import check_template, encode_dialogue, encode_prompt, encode_reply, next_turn_marks
from detoxlens.params.models import ChatTemplate, ModelConfig, TemplateConfig
from detoxlens.params.section import parse
from tests.data.tokenizers import CHAT_TEMPLATES, FAMILIES, LOSSLESS

TURNS = ("Ferries are slow", "They are calm", "Zorgons are loud")


def tokenizer_with(template, family="byte BPE"):
    tokenizer = FAMILIES[family]()
    tokenizer.chat_template = CHAT_TEMPLATES.get(template, template)
    return tokenizer


def spelt(tokenizer, encoded, region):
    return tokenizer.decode([i for i, r in zip(encoded.ids, encoded.regions, strict=True) if r == region])


@pytest.mark.parametrize("kind", CHAT_TEMPLATES)
@pytest.mark.parametrize("family", LOSSLESS)
def test_ids_are_those_of_apply_chat_template_with_one_begin_token(family, kind):
    tokenizer = tokenizer_with(kind, family)
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(TURNS)]
    for n in (1,) if kind == "no end token" else (1, 3):  # where no token parts the turns, ours are parted by hand
        reference = tokenizer.apply_chat_template(messages[:n], add_generation_prompt=True)["input_ids"]
        adds_one = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        if adds_one and reference[0] != tokenizer.bos_token_id:
            reference = [tokenizer.bos_token_id, *reference]
        assert list(encode_prompt(tokenizer, ChatTemplate(), TURNS[:n]).ids) == reference


@pytest.mark.parametrize("kind", CHAT_TEMPLATES)
@pytest.mark.parametrize("family", LOSSLESS)
def test_a_dialogue_begins_with_its_prompt_and_the_reply_ends_once(family, kind):
    tokenizer = tokenizer_with(kind, family)
    ids, is_reply = encode_dialogue(tokenizer, ChatTemplate(), [*TURNS, "So is rain"])
    for n in (1, 3):
        prompt = encode_prompt(tokenizer, ChatTemplate(), TURNS[:n]).ids
        assert tuple(ids[: len(prompt)]) == prompt and is_reply[len(prompt)] and not is_reply[len(prompt) - 1]
    end = "</s>" if kind in ("begin token in the template", "no end token") else "<|over|>"
    replies = tokenizer.decode([i for i, mine in zip(ids, is_reply, strict=True) if mine])
    assert replies.endswith(f"So is rain{end}") or replies.endswith(f"So is rain {end}")
    assert replies.count(end) == (1 if kind == "no end token" else 2)
    assert tokenizer.decode(encode_reply(tokenizer, ChatTemplate(), "a", "So is rain")).strip() == "So is rain"


def test_a_system_message_is_a_region_of_its_own_and_stays_text():
    tokenizer = tokenizer_with("system allowed")
    encoded = encode_prompt(tokenizer, ChatTemplate(system="Be kind<|over|>."), ["Ferries are slow"])
    assert tokenizer.decode(encoded.ids).startswith("<|turn|>system\nBe kind<|over|>.<|over|>\n<|turn|>user\nFerries")
    assert spelt(tokenizer, encoded, "system") == "Be kind<|over|>." and spelt(tokenizer, encoded, "user") == TURNS[0]
    assert encoded.ids.count(tokenizer.convert_tokens_to_ids("<|over|>")) == 2


def test_what_a_template_says_of_its_own_is_the_system_region_and_can_be_emptied():
    tokenizer = tokenizer_with("system of its own")
    assert spelt(tokenizer, encode_prompt(tokenizer, ChatTemplate(), ["a"]), "system") == "You help."
    assert "You help" not in tokenizer.decode(encode_prompt(tokenizer, ChatTemplate(system=""), ["a"]).ids)


@pytest.mark.parametrize("kind", [kind for kind in CHAT_TEMPLATES if kind != "system refused"])
def test_a_template_that_takes_a_system_message_is_given_it(kind):
    tokenizer = tokenizer_with(kind)
    encoded = encode_prompt(tokenizer, ChatTemplate(system="Be kind."), ["a"])
    assert spelt(tokenizer, encoded, "system").strip() == "Be kind."


@pytest.mark.parametrize(
    ("template", "asked", "said"),
    [
        (CHAT_TEMPLATES["system refused"], {"system": "Be kind."}, "template.system is set.*System role not supported"),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content }};{% endfor %}",
            {"system": "Be kind."},
            "leaves it",
        ),
        (None, {}, r"models\.<model>\.template: chat .* no chat template; write it out .* reply: "),
        (
            "{% for m in messages %}{{ m.content.x.y }}{% endfor %}",
            {},
            "UndefinedError: 'str object' has no attr.*; write",
        ),
        ("{% for %}", {}, "TemplateSyntaxError"),
        ("{{ raise_exception('no ' ~ 'way') }}", {}, "TemplateError: no way"),
        ("{{ 1 / 0 }}", {}, "ZeroDivisionError"),
        ("Hello", {}, "writes turn 1 of 1 not at all"),
        ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", {}, "turn 1 of 1 more than once"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_paragraph(template, asked, said):
    with pytest.raises(UserError, match=said) as caught:
        check_template(tokenizer_with(template), ChatTemplate(**asked))
    assert "\n" not in str(caught.value)


def test_a_template_that_writes_earlier_replies_otherwise_is_refused_for_several_and_serves_for_one():
    thinks = (
        "{% for m in messages %}{{ '<|turn|>' + m.role + m.content + '<|over|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant<think>\n{% endif %}"
    )
    tokenizer = tokenizer_with(thinks)
    ids, is_reply = encode_dialogue(tokenizer, ChatTemplate(), ["a", "b"])
    assert tokenizer.decode(ids) == "<|turn|>usera<|over|><|turn|>assistant<think>\nb<|over|>"
    assert tokenizer.decode([i for i, mine in zip(ids, is_reply, strict=True) if mine]) == "b<|over|>"
    with pytest.raises(UserError, match="writes an earlier reply otherwise"):
        encode_dialogue(tokenizer, ChatTemplate(), ["a", "b", "c", "d"])


def test_a_template_that_writes_todays_date_writes_one_day_always():
    tokenizer = tokenizer_with("{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATES["system allowed"])
    assert tokenizer.decode(encode_prompt(tokenizer, ChatTemplate(), ["a"]).ids).startswith("26 Jul 2024<|turn|>")


def test_variables_reach_the_template():
    tokenizer = tokenizer_with("{{ mood }}: " + CHAT_TEMPLATES["system allowed"])
    encoded = encode_prompt(tokenizer, ChatTemplate(variables={"mood": "calm"}), ["a"])
    assert tokenizer.decode(encoded.ids).startswith("calm: ")


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        (ChatTemplate(), ("<|turn|>user",)),
        (TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n"), ("<human>:",)),
        (TemplateConfig(user="Human: {text}\n", bot="Bot:", reply=" {text}", end="\n"), ("\nHuman:",)),
        (TemplateConfig(user="{text}", bot="", reply="{text}", end=""), ()),
    ],
)
def test_what_begins_a_humans_turn(template, marks):
    assert next_turn_marks(tokenizer_with("system allowed"), template) == marks


def test_a_model_needs_two_lines_its_name_and_its_source():
    assert parse(ModelConfig, {"source": "owner/name"}, "models.m").template == ChatTemplate()
    assert parse(ModelConfig, {"source": "a/b", "template": "chat"}, "models.m").template == ChatTemplate()
    told = parse(ModelConfig, {"source": "a/b", "template": {"system": "Be kind."}}, "models.m")
    assert told.template == ChatTemplate(system="Be kind.")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("caht", r"models\.m\.template='caht': allowed are chat, \{system"),
        ({"sytem": "a"}, r"models\.m\.template\.sytem is not a known key\. Did you mean 'system'"),
        ({"user": "{text}"}, r"models\.m\.template\.bot is missing"),
        ({"system": 3}, r"models\.m\.template\.system=3"),
        (None, r"models\.m\.template=None: allowed are chat"),
    ],
)
def test_a_template_that_is_misspelt_is_named(template, said):
    with pytest.raises(UserError, match=said):
        parse(ModelConfig, {"source": "a/b", "template": template}, "models.m")
