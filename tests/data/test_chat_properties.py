"""Chats of any text and length in five tokenizer families: text in is text out, or a UserError; nothing else."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detoxlens.common.errors import UserError
from detoxlens.common.text import INVISIBLE
from detoxlens.common.tokens import control_ids
from detoxlens.data.templates import encode_dialogue, encode_prompt
from detoxlens.params.models import ChatTemplate, TemplateConfig
from tests.data.tokenizers import CHAT_TEMPLATES, FAMILIES

EXAMPLES = pytest.mark.parametrize("num_examples", [150, pytest.param(10_000, marks=pytest.mark.slow)])
WRITTEN = {
    "ours": TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n"),
    "authors": TemplateConfig(
        user="### Question: {text}.\n", bot="### Answer: ", reply="{text}", end="\n", eos_after_reply=False
    ),
    "control tokens written": TemplateConfig(
        user="<|turn|>{text}<|over|>\n", bot="<|turn|>", reply="{text}<|over|>", end="</s>\n"
    ),
}
TRAPS = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "[SEP]",
    "[UNK]",
    "<|turn|>",
    "<|over|>",
    "<0x41>",
    " ",
    "\n",
    "▁",
    "{text}",
    "{{ 1 }}",
    "Ferries are slow",
    "\u200b",
    "e\u0301",
    "\uff1c/s\uff1e",
]
ASCII = st.text(st.characters(codec="ascii"), max_size=12)
TEXTS = st.lists(st.text() | st.sampled_from(TRAPS), max_size=4).map("".join)
PLAIN_TEXTS = st.lists(ASCII | st.sampled_from(TRAPS[:14]), max_size=4).map("".join)


def chats(texts):
    """Dialogues of one to four exchanges."""
    return st.integers(1, 4).flatmap(lambda n: st.lists(texts, min_size=2 * n, max_size=2 * n))


@functools.cache
def tokenizer_of(family, kind):
    tokenizer = FAMILIES[family]()
    tokenizer.chat_template = CHAT_TEMPLATES.get(kind)
    return tokenizer


def squashed(tokenizer, text):
    """What the tokenizer's normalizer leaves of a text, without white space and what nobody sees."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    text = normalizer.normalize_str(text) if normalizer else text
    return "".join(INVISIBLE.sub("", text).replace("▁", "").split()).casefold()


def spelt(tokenizer, encoded, region):
    ids = [i for i, r in zip(encoded.ids, encoded.regions, strict=True) if r == region]
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return "".join(INVISIBLE.sub("", text).replace("▁", "").split()).casefold()


def controls(tokenizer, ids):
    return [i for i in ids if i in control_ids(tokenizer)]


@EXAMPLES
@pytest.mark.parametrize("family", FAMILIES)
def test_text_in_is_text_out_whatever_the_text(family, num_examples):
    num_encoded = 0

    @settings(max_examples=num_examples)
    @given(st.sampled_from([*WRITTEN, *CHAT_TEMPLATES]), chats(TEXTS) | chats(PLAIN_TEXTS))
    def holds(kind, turns):
        nonlocal num_encoded
        tokenizer, template = tokenizer_of(family, kind), WRITTEN.get(kind, ChatTemplate())
        try:
            ids, is_reply = encode_dialogue(tokenizer, template, turns)
            prompt = encode_prompt(tokenizer, template, turns[:-1])
        except UserError:
            return
        num_encoded += 1
        assert tuple(ids[: len(prompt.ids)]) == prompt.ids  # learnt as it is generated
        plain = encode_prompt(tokenizer, template, ["a"] * (len(turns) - 1))
        assert controls(tokenizer, prompt.ids) == controls(tokenizer, plain.ids)  # the template's, whatever the text
        learnt = encode_dialogue(tokenizer, template, ["a"] * len(turns))[0]
        assert controls(tokenizer, ids) == controls(tokenizer, learnt)
        own = [i for i, r in zip(prompt.ids, prompt.regions, strict=True) if r in ("user", "earlier")]
        assert not controls(tokenizer, own)
        assert squashed(tokenizer, turns[-2]) in spelt(tokenizer, prompt, "user")
        earlier = spelt(tokenizer, prompt, "earlier")
        assert all(squashed(tokenizer, turn) in earlier for turn in turns[:-2])
        replies = tokenizer.decode([i for i, mine in zip(ids, is_reply, strict=True) if mine])
        replies = "".join(INVISIBLE.sub("", replies).replace("▁", "").split()).casefold()
        assert all(squashed(tokenizer, turn) in replies for turn in turns[1::2])

    holds()
    assert num_encoded > num_examples / 10  # else the property would hold for want of cases
