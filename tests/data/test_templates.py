"""Chat templates: ids, regions and loss masks, with a small byte-level BPE tokenizer trained here."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from detoxlens.common.errors import UserError
from detoxlens.data.templates import EncodedPrompt, check_length, encode_dialogue, encode_prompt
from detoxlens.params.models import TemplateConfig

OURS = TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n")
AUTHORS = TemplateConfig(
    user="<human>: {text}.\n",
    eval_user='<human>: "{text}".\n',
    bot="<bot>: ",
    reply="{text}",
    end="\n",
    eos_after_reply=False,
)
TURNS = ("Zorgons are loud", "So is rain", "Zorgons stole my ünïcode 🪗", "It is in your drawer")


def make_tokenizer(*, bos: bool = False, trim_offsets: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|end|>", "<|begin|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    corpus = ["<human>: Zorgons are loud.\n<bot>: So is rain", "<human>: Zorgons stole my spoon\n<bot>: drawer"] * 3
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = (
        processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
        if bos
        else processors.ByteLevel(trim_offsets=trim_offsets)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|begin|>" if bos else None
    )


@pytest.fixture(params=[True, False], ids=["trimmed", "untrimmed"])
def tokenizer(request):
    return make_tokenizer(trim_offsets=request.param)


def spell(tokenizer, encoded: EncodedPrompt, region: str) -> str:
    return tokenizer.decode([i for i, r in zip(encoded.ids, encoded.regions, strict=True) if r == region])


def test_a_prompt_reads_as_the_template_says_and_ends_where_the_bot_begins(tokenizer):
    encoded = encode_prompt(tokenizer, OURS, ["Zorgons are loud"])
    assert tokenizer.decode(encoded.ids) == "<human>: Zorgons are loud\n<bot>:"
    assert spell(tokenizer, encoded, "user").strip() == "Zorgons are loud"
    assert spell(tokenizer, encoded, "template") == "<human>:\n<bot>:"
    assert encoded.is_template == tuple(r == "template" for r in encoded.regions)


def test_at_evaluation_the_authors_put_the_prompt_in_quotes(tokenizer):
    at_training = encode_prompt(tokenizer, AUTHORS, ["Zorgons are loud"])
    at_evaluation = encode_prompt(tokenizer, AUTHORS, ["Zorgons are loud"], evaluation=True)
    assert tokenizer.decode(at_training.ids) == "<human>: Zorgons are loud.\n<bot>: "
    assert tokenizer.decode(at_evaluation.ids) == '<human>: "Zorgons are loud".\n<bot>: '
    assert spell(tokenizer, at_evaluation, "user") == "Zorgons are loud"
    assert encode_prompt(tokenizer, OURS, ["a"], evaluation=True) == encode_prompt(tokenizer, OURS, ["a"])


def test_earlier_turns_are_a_region_of_their_own_and_characters_of_several_bytes_stay_text(tokenizer):
    encoded = encode_prompt(tokenizer, OURS, TURNS[:3])
    assert tokenizer.decode(encoded.ids) == (
        f"<human>: {TURNS[0]}\n<bot>: {TURNS[1]}<|end|>\n<human>: {TURNS[2]}\n<bot>:"
    )
    assert spell(tokenizer, encoded, "user").strip() == TURNS[2]
    assert spell(tokenizer, encoded, "earlier").split() == f"{TURNS[0]} {TURNS[1]}".split()
    assert spell(tokenizer, encoded, "template").count("<|end|>") == 1


def test_a_token_that_holds_text_and_template_is_text(tokenizer):
    # "Zorgons" is one token with the space before it, which comes from the template.
    encoded = encode_prompt(tokenizer, OURS, ["Zorgons"])
    assert [tokenizer.decode(i) for i, r in zip(encoded.ids, encoded.regions, strict=True) if r == "user"] == [
        " Zorgons"
    ]


@pytest.mark.parametrize("template", [OURS, AUTHORS], ids=["ours", "authors"])
@pytest.mark.parametrize("bos", [False, True], ids=["no BOS", "BOS"])
def test_what_is_learnt_from_begins_with_exactly_what_is_generated_from(template, bos):
    tokenizer = make_tokenizer(bos=bos)
    ids, is_reply = encode_dialogue(tokenizer, template, TURNS)
    for num_turns in (1, 3):
        prompt = encode_prompt(tokenizer, template, TURNS[:num_turns])
        assert tuple(ids[: len(prompt.ids)]) == prompt.ids
        assert is_reply[len(prompt.ids)] and not is_reply[len(prompt.ids) - 1]


def test_the_loss_mask_holds_the_replies_with_their_end_of_sequence(tokenizer):
    ids, is_reply = encode_dialogue(tokenizer, OURS, TURNS)
    replies = tokenizer.decode([i for i, mine in zip(ids, is_reply, strict=True) if mine])
    assert replies == " So is rain<|end|> It is in your drawer<|end|>"
    ids, is_reply = encode_dialogue(tokenizer, AUTHORS, TURNS)
    assert (
        tokenizer.decode([i for i, mine in zip(ids, is_reply, strict=True) if mine]) == "So is rainIt is in your drawer"
    )
    assert tokenizer.eos_token_id not in ids


def test_a_begin_of_sequence_token_is_put_first_once_where_the_tokenizer_adds_one():
    tokenizer = make_tokenizer(bos=True)
    encoded = encode_prompt(tokenizer, OURS, TURNS[:3])
    assert encoded.ids[0] == tokenizer.bos_token_id and encoded.ids.count(tokenizer.bos_token_id) == 1
    assert encoded.regions[0] == "template"
    without = encode_prompt(make_tokenizer(), OURS, TURNS[:3])
    assert encoded.ids[1:] == without.ids and encoded.regions[1:] == without.regions


def test_braces_in_a_text_or_a_template_are_only_braces(tokenizer):
    template = OURS.model_copy(update={"user": "{{role: human}} {text}\n"})
    encoded = encode_prompt(tokenizer, template, ["{text} {0}"])
    assert tokenizer.decode(encoded.ids) == "{{role: human}} {text} {0}\n<bot>:"


def test_a_prompt_longer_than_the_context_is_named():
    prompts = {name: EncodedPrompt((0,) * n, ("user",) * n) for name, n in {"fits": 6, "9f86": 8, "long": 7}.items()}
    check_length({"fits": prompts["fits"]}, max_new_tokens=4, context_length=10)
    with pytest.raises(
        UserError, match=r"prompt 9f86 has 8 tokens.*\(1 more are too long\).*context of 10.*at most 2 "
    ):
        check_length(prompts, max_new_tokens=4, context_length=10)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda t: encode_prompt(t, OURS, ["a", "b"]), "odd number of turns"),
        (lambda t: encode_prompt(t, OURS, []), "odd number of turns"),
        (lambda t: encode_dialogue(t, OURS, ["a"]), "even number of turns"),
        (lambda t: encode_dialogue(t, OURS, []), "even number of turns"),
        (
            lambda t: encode_prompt(t, OURS.model_copy(update={"user": "<human>:"}), ["a"]),
            "template.user='<human>:' must contain {text} exactly once",
        ),
    ],
)
def test_mistakes_are_told(tokenizer, call, told):
    with pytest.raises(UserError) as caught:
        call(tokenizer)
    assert told in str(caught.value)


def test_a_tokenizer_without_an_end_of_sequence_token_is_told(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        encode_dialogue(tokenizer, OURS, ["a", "b"])
