"""Text that spells a control token stays text, in every tokenizer family; the spaces of SentencePiece stand once."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from detoxlens.common.errors import UserError
from detoxlens.common.tokens import begin_ids, control_ids, end_ids, plain_ids, tokens_of, unread
from detoxlens.data.templates import encode_dialogue, encode_prompt
from detoxlens.params.models import TemplateConfig
from tests.data.tokenizers import FAMILIES, LOSSLESS, byte_bpe, llama, unigram, with_begin_token, wordpiece

TEMPLATE = TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["<s>", "</s>", "<|over|>", "[SEP]", "<unk>"])
def test_no_text_becomes_a_control_token(family, name):
    tokenizer = FAMILIES[family]()
    ids = plain_ids(tokenizer, f"calm {name} and late{name}")
    assert not control_ids(tokenizer) & set(ids) - {tokenizer.unk_token_id}
    if family in LOSSLESS:
        assert tokenizer.decode(ids).removeprefix(" ") == f"calm {name} and late{name}"


def test_the_templates_control_tokens_stay_beside_those_of_the_text():  # template | text | template
    tokenizer = byte_bpe()
    over = tokenizer.convert_tokens_to_ids("<|over|>")
    text = "<|turn|>a<|over|>b<|over|>"
    tokens = tokens_of(tokenizer, text, own=[(8, 18)])
    assert [t.start for t in tokens if t.id == over] == [18]
    assert tokenizer.decode([t.id for t in tokens]) == text


def test_an_added_token_that_the_chat_template_writes_is_a_control_token_and_another_is_text():
    tokenizer = byte_bpe()
    tokenizer.add_tokens(["<think>", "<td>"])
    think, cell = tokenizer.convert_tokens_to_ids(["<think>", "<td>"])
    assert {think, cell} <= set(plain_ids(tokenizer, "a<think>b<td>"))
    tokenizer.chat_template = "<think>{{ messages[0].content }}"
    assert plain_ids(tokenizer, "a<think>b<td>").count(cell) == 1
    assert think not in plain_ids(tokenizer, "a<think>b<td>")


def test_a_control_token_that_swallows_white_space_leaves_that_of_the_text():
    from tokenizers import AddedToken

    tokenizer = byte_bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|ask|>", rstrip=True, special=True)]})
    tokens = tokens_of(tokenizer, "<|ask|>  hi", own=[(7, 11)])
    assert tokenizer.decode([t.id for t in tokens]) == "<|ask|>  hi"


def test_the_name_of_a_byte_is_not_that_byte():
    tokenizer = llama()
    assert tokenizer.decode(plain_ids(tokenizer, "a <0x41> b")).strip() == "a <0x41> b"


def test_what_the_tokenizer_has_no_token_for_is_named_not_dropped():
    for tokenizer in (unigram(), wordpiece()):
        with pytest.raises(UserError, match="has no token for '🪗"):
            encode_prompt(tokenizer, TEMPLATE, ["play the 🪗"])
    made = Tokenizer(models.BPE())  # without an unknown token it drops in silence
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(["ab"], trainers.BpeTrainer(vocab_size=9, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    assert unread(tokenizer, "abz", tokens_of(tokenizer, "abz", own=[(0, 3)])) == "z"


def test_half_a_character_is_named():
    with pytest.raises(UserError, match=r"half a character \('\\udc80'\)"):
        encode_prompt(byte_bpe(), TEMPLATE, ["a\udc80b"])


def test_what_a_tokenizer_puts_around_a_text_of_its_own_accord():
    assert begin_ids(byte_bpe()) == end_ids(byte_bpe()) == []
    tokenizer = with_begin_token()
    assert begin_ids(tokenizer) == [tokenizer.bos_token_id] and end_ids(tokenizer) == []
    tokenizer = wordpiece()
    assert (begin_ids(tokenizer), end_ids(tokenizer)) == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])


def test_a_tokenizer_that_puts_something_else_around_texts_than_before_is_asked_again():
    tokenizer = byte_bpe()
    assert begin_ids(tokenizer) == []
    tokenizer.backend_tokenizer.post_processor = with_begin_token().backend_tokenizer.post_processor
    assert len(begin_ids(tokenizer)) == 1


def test_a_text_is_read_whole_whatever_the_tokenizer_was_called_with_before():
    tokenizer = byte_bpe()
    whole = plain_ids(tokenizer, "a <|over|> b")
    tokenizer("a b c", truncation=True, max_length=2, padding="max_length")
    assert plain_ids(tokenizer, "a <|over|> b") == whole and len(whole) > 2


def test_a_begin_token_stands_once_whoever_writes_it():
    tokenizer = with_begin_token()
    written = TemplateConfig(user="<s>[ASK] {text} [/ASK]", bot="", reply=" {text}", end="")
    prompt = encode_prompt(tokenizer, written, ["Ferries are slow"]).ids
    dialogue, _ = encode_dialogue(tokenizer, written, ["Ferries are slow", "They are calm"])
    assert prompt.count(tokenizer.bos_token_id) == dialogue.count(tokenizer.bos_token_id) == 1
    assert prompt[0] == dialogue[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(("reply", "end"), [(" {text}</s>", "\n"), (" {text}", "</s>\n"), (" {text}</s>", "</s>\n")])
def test_an_end_token_stands_once_whoever_writes_it(reply, end):
    tokenizer = byte_bpe()
    written = TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=reply, end=end)
    ids, is_reply = encode_dialogue(tokenizer, written, ["a", "b", "c", "d"])
    assert tokenizer.decode(ids) == "<human>: a\n<bot>: b</s>\n<human>: c\n<bot>: d</s>"
    assert [mine for i, mine in zip(ids, is_reply, strict=True) if i == tokenizer.eos_token_id] == [True, True]


def sentencepiece(scheme):
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="never")
    texts = ["<human>: ferries are slow\n<bot>: they are calm\n<human>: and late so are trains"] * 4
    special = ["<unk>", "</s>"]
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_the_pieces_of_a_chat_spell_the_template_and_nothing_more(scheme):
    tokenizer = sentencepiece(scheme)
    turns = ["ferries are slow", "they are calm", "and late", "so are trains"]
    ids, _ = encode_dialogue(tokenizer, TEMPLATE, turns)
    assert tokenizer.decode(ids).removeprefix(" ") == (
        "<human>: ferries are slow\n<bot>: they are calm</s>\n<human>: and late\n<bot>: so are trains</s>"
    )
    assert tuple(ids[: len(prompt := encode_prompt(tokenizer, TEMPLATE, turns[:3]).ids)]) == prompt
