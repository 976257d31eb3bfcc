"""A reply ends at every end token that the checkpoint names, and min_new_tokens bans all of them."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers as hf

from detoxlens.models.backends import load_backend
from detoxlens.models.end_tokens import end_token_ids, named_end_tokens, set_end_tokens
from detoxlens.models.generation import sample_batch
from detoxlens.models.loading import load_tokenizer, resolve
from detoxlens.models.truncation import ban_early_eos
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.models import ModelConfig
from tests.data.tokenizers import byte_bpe

GREEDY = GenerationConfig(
    max_new_tokens=12,
    min_new_tokens=0,
    temperature=0,
    top_k=0,
    top_p=1,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=1,
)


@pytest.fixture
def tokenizer():
    return byte_bpe()


def chatty(tokenizer, prompt, *, ends_after):
    """A GPT-2 that says <|over|> as its token number `ends_after`, without ever having said an end token."""
    over = tokenizer.convert_tokens_to_ids("<|over|>")
    torch.manual_seed(1)
    config = hf.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=96,
        tie_word_embeddings=False,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = hf.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.lm_head.weight[[over, tokenizer.eos_token_id]] = 0
        ids = list(prompt)
        for _ in range(ends_after):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        hidden = model.transformer(torch.tensor([ids])).last_hidden_state[0, -1]
        others = model.transformer(torch.tensor([ids])).last_hidden_state[0, len(prompt) - 1 : -1]
        direction = hidden - others.T @ torch.linalg.lstsq(others.T, hidden).solution  # no earlier step sees it
        model.lm_head.weight[over] = 900 * direction / direction.norm() ** 2
    return model, over, ids[len(prompt) :]


def test_a_reply_ends_at_the_second_end_token_of_generation_config(tokenizer, tmp_path):
    prompt = tokenizer("<human>: Ferries are slow\n<bot>:")["input_ids"]
    model, over, said = chatty(tokenizer, prompt, ends_after=3)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, over]
    model.save_pretrained(tmp_path / "chatty")
    tokenizer.save_pretrained(tmp_path / "chatty")
    ref = resolve(tmp_path, "chatty", None)
    loaded = load_tokenizer(tmp_path, ref)
    backend = load_backend(tmp_path, ref, ModelConfig(source="chatty"), loaded, GREEDY, device="cpu")
    (sampled,) = backend.sample([prompt], [0])
    assert (sampled.token_ids, sampled.finish_reason) == ((*said, over), "eos")


def test_min_new_tokens_bans_every_end_token(tokenizer):
    logits = torch.zeros(2, 6)
    banned = ban_early_eos(logits, torch.tensor([1, 3]), 3, [4, 2])
    assert banned.isneginf().tolist() == [[False, False, True, False, True, False], [False] * 6]
    assert torch.equal(ban_early_eos(logits, 0, 1, 4), ban_early_eos(logits, 0, 1, (4,)))
    prompt = tokenizer("Ferries")["input_ids"]
    model, over, _ = chatty(tokenizer, prompt, ends_after=1)
    config = GREEDY.model_copy(update={"min_new_tokens": 5})
    (sampled,) = sample_batch(
        model, [prompt], config=config, seeds=[0], eos_token_id=(tokenizer.eos_token_id, over), pad_token_id=1
    )
    assert over not in sampled.token_ids[:5] and tokenizer.eos_token_id not in sampled.token_ids[:5]


def test_the_templates_end_of_turn_is_added_where_transformers_and_trl_look(tokenizer):
    prompt = tokenizer("Ferries")["input_ids"]
    model, over, _ = chatty(tokenizer, prompt, ends_after=1)
    eos = tokenizer.eos_token_id
    assert end_token_ids(model, tokenizer) == (eos,)
    assert set_end_tokens(model, tokenizer, [over]) == (eos, over)
    assert model.generation_config.eos_token_id == [eos, over] and end_token_ids(model, tokenizer) == (eos, over)


def test_ordinary_text_ends_nothing_and_a_number_beyond_the_vocabulary_neither(tokenizer, caplog):
    word = tokenizer("calm")["input_ids"][-1]
    with caplog.at_level(logging.WARNING):
        assert named_end_tokens(tokenizer, [word, 50256]) == (tokenizer.eos_token_id,)
    assert f"the end token(s) {word}, 50256, which are ordinary text" in caplog.text
    assert named_end_tokens(tokenizer, None) == named_end_tokens(tokenizer, tokenizer.eos_token_id)
