"""Decoders as text classifiers (GPT-2, Llama with a score layer): they read the last token that is no padding."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers as hf

from detoxlens.common.errors import UserError
from detoxlens.models import tiny
from detoxlens.models.classifier import TextClassifier
from detoxlens.scorers import make_scorer
from tests.models.checkpoints import save_classifier, save_language_model

TEXTS = ["Ferries are slow", "Ferries are slow and late again today", "late"]
SLOWER = "texts are read one at a time"


def save(folder, *, tokenizer_pad, config_pad, padding_side="right"):
    tokenizer = tiny.train_tokenizer(TEXTS, 280)
    tokenizer.padding_side = padding_side
    tokenizer.pad_token = tokenizer.eos_token if tokenizer_pad else None
    torch.manual_seed(0)
    model = hf.GPT2ForSequenceClassification(
        hf.GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=64,
            id2label={0: "nothate", 1: "hate"},
            label2id={"nothate": 0, "hate": 1},
            pad_token_id={True: tokenizer.eos_token_id, False: None}.get(config_pad, config_pad),
            initializer_range=0.5,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer


@pytest.mark.parametrize(
    ("padding", "slower"),
    [
        ({"tokenizer_pad": True, "config_pad": True}, False),
        ({"tokenizer_pad": False, "config_pad": False}, True),
        ({"tokenizer_pad": True, "config_pad": False}, True),
        ({"tokenizer_pad": True, "config_pad": 200}, True),
        ({"tokenizer_pad": True, "config_pad": True, "padding_side": "left"}, False),
    ],
    ids=["padding token", "none", "unknown to the model", "another to the model", "on the left"],
)
def test_a_text_has_the_score_that_it_has_alone(tmp_path, caplog, padding, slower):
    model, tokenizer = save(tmp_path / "judge", **padding)
    with caplog.at_level(logging.WARNING):
        scorer = make_scorer("hf:judge", root=tmp_path)
    assert any(SLOWER in r.message for r in caplog.records) == slower
    verdicts = scorer.score(TEXTS)
    assert [v.status for v in verdicts] == ["ok"] * 3
    with torch.no_grad():
        expected = [
            model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0].softmax(-1)[1].item() for text in TEXTS
        ]
    assert [v.toxicity for v in verdicts] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.05


def test_a_decoder_without_a_trained_score_layer_is_refused_at_loading(tmp_path):
    save_language_model(tmp_path / "m")
    with pytest.raises(UserError, match=r"not a trained text classifier: its weights lack score\.weight"):
        make_scorer("hf:m", root=tmp_path)


def test_a_classifier_that_cannot_read_its_own_tokenizers_tokens_is_refused_at_loading(tmp_path):
    save_classifier(tmp_path / "judge")
    tokenizer = tiny.train_tokenizer(TEXTS, 300)
    tokenizer.add_tokens([*(f"zorgon{i}" for i in range(60)), "Good"])
    tokenizer.save_pretrained(tmp_path / "judge")
    with pytest.raises(UserError, match=r"judge cannot read a text \(IndexError: .*tokenizer that it was trained with"):
        make_scorer("hf:judge", root=tmp_path)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_what_a_silent_config_leaves_open_is_said_in_the_scorers_name_or_in_params(tmp_path, activation):
    save_classifier(tmp_path / "judge", labels=("toxic", "obscene", "threat"), problem_type=None)
    with pytest.raises(UserError, match="does not say how they go together"):
        make_scorer("hf:judge", root=tmp_path)
    scorer = make_scorer(f"hf:judge#toxic={activation}", root=tmp_path)
    reward = TextClassifier.load(str(tmp_path / "judge"), activation=activation)
    assert (scorer.label, scorer.activation, reward.activation) == ("toxic", activation, activation)
    (verdict,) = scorer.score(["You ferry."])
    logits = scorer.classifier.model(**scorer.classifier.tokenizer("You ferry.", return_tensors="pt")).logits[0]
    given = logits.sigmoid() if activation == "sigmoid" else logits.softmax(-1)
    assert verdict.toxicity == pytest.approx(given[0].item(), abs=1e-6)
    assert make_scorer(f"hf:judge#={activation}", root=tmp_path).label == "toxic"
