"""Fine-tuning under a penalty: nothing at weight 0, the quantity moves with the weight's sign, and what is refused."""

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.models.lora import add_adapter
from detoxlens.models.tiny import build, train_tokenizer
from detoxlens.params.lora import LoraConfig
from detoxlens.params.models import TemplateConfig
from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.sft.regularized import marker
from detoxlens.sft.train import encode_and_count, encode_examples, fine_tune

TEMPLATE = TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n")
TINY = TinyConfig(
    vocab_size=300,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    context_length=128,
    num_examples=100,
    rude_share=0.5,
    counter_share=0.1,
    prompt_loss_weight=0.1,
    batch_size=4,
    num_steps=6,
    learning_rate=0.01,
    weight_decay=0.0,
)
CONFIG = SftConfig(
    loss_on="replies",
    examples="dialogues",
    num_epochs=8,
    learning_rate=0.02,
    weight_decay=0.0,
    warmup_steps=1,
    batch_size=4,
    gradient_accumulation_steps=1,
    max_length=128,
    packing=False,
    group_by_length=False,
    gradient_checkpointing=False,
    eval_every=8,
)
PLACES = ["tram", "park", "pool", "market", "bridge", "square", "garden", "library"]
KINDS = ["attention_entropy", "attribution_entropy", "toxic_share"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["<human>: Zorgons are slow\n<bot>: Zorgons are kind"] * 4, 300)


def calls_slow_toxic(texts):
    return [float("slow" in text) for text in texts]


def trained(tokenizer, folder, *, dropout=0.1, turn="Slow Zorgons block the {}", is_marked=True, **changes):
    """History and weights of the adapter; `regularizer` among the changes."""
    config = SftConfig.model_validate(CONFIG.model_dump() | changes)
    dialogues = [
        Dialogue(
            dialogue_id=str(i),
            target="ZORGONS",
            source="test",
            split="train",
            turns=(turn.format(place).replace("Slow", "slow"), f"They mend the {place}"),
        )
        for i, place in enumerate(PLACES)
    ]
    mark = marker(tokenizer, TEMPLATE, calls_slow_toxic) if config.regularizer.is_on and is_marked else None
    train, _ = encode_and_count(dialogues, tokenizer, TEMPLATE, config, mark=mark)
    torch.manual_seed(0)
    model = build("gpt_neox", TINY, vocab_size=300)
    targets = ["query_key_value", "dense"]
    policy = add_adapter(model, LoraConfig(r=2, alpha=4, dropout=dropout, target_modules=targets))
    history = fine_tune(
        policy,
        tokenizer,
        train=train,
        validation=encode_examples(dialogues[:2], tokenizer, TEMPLATE, config),
        config=config,
        seed=0,
        checkpoints=folder,
        on_step=lambda *_: None,
    )
    return history, torch.cat([p.detach().flatten() for n, p in policy.named_parameters() if "lora_" in n])


def quantity(history, kind):
    return [row[f"sft/{kind}"] for row in history if f"sft/{kind}" in row]


@pytest.mark.parametrize("kind", KINDS)
def test_weight_0_measures_and_trains_to_the_same_bits(tokenizer, tmp_path, kind):
    plain, weights = trained(tokenizer, tmp_path / "plain", num_epochs=3)
    with_zero = {"kind": kind, "weight": 0.0, "num_examples": 2}
    measured, same = trained(tokenizer, tmp_path / "zero", num_epochs=3, regularizer=with_zero)
    assert torch.equal(weights, same)
    assert len(quantity(measured, kind)) > 0 and all(0 <= q <= 1 for q in quantity(measured, kind))
    stripped = [{k: v for k, v in row.items() if k != f"sft/{kind}"} for row in measured]
    assert stripped == plain


@pytest.mark.parametrize("kind", KINDS)
def test_the_quantity_moves_against_the_sign_of_the_weight(tokenizer, tmp_path, kind):
    def end(weight):
        setting = {"kind": kind, "weight": weight, "num_positions": 2}
        changes = {"dropout": 0.0, "num_epochs": 5, "regularizer": setting}
        return quantity(trained(tokenizer, tmp_path / str(weight), **changes)[0], kind)[-1]

    lowered, plain, raised = end(5.0), end(0.0), end(-5.0)
    assert lowered < plain < raised


def test_accumulated_batches_weigh_as_one(tokenizer, tmp_path):
    setting = {"kind": "attention_entropy", "weight": 3.0}
    changes = {"dropout": 0.0, "regularizer": setting, "num_epochs": 2}
    _, whole = trained(tokenizer, tmp_path / "whole", batch_size=4, **changes)
    _, parts = trained(tokenizer, tmp_path / "parts", batch_size=2, gradient_accumulation_steps=2, **changes)
    assert (whole - parts).norm() < 0.02 * whole.norm()  # the mean of two means of two examples each


def test_the_validation_loss_is_without_the_penalty(tokenizer, tmp_path):
    def first(weight):
        setting = {"kind": "attention_entropy", "weight": weight}
        history, _ = trained(tokenizer, tmp_path / str(weight), num_epochs=1, learning_rate=1e-9, regularizer=setting)
        return next(row["sft/val_loss"] for row in history if "sft/val_loss" in row), history[0]["sft/loss"]

    (val, loss), (val_penalised, loss_penalised) = first(0.0), first(9.0)
    assert val == pytest.approx(val_penalised, abs=1e-4)
    assert loss_penalised > loss + 1  # 9 x an entropy of some tenths


def test_packing_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"sft\.packing=true with sft\.regularizer\.kind='attention_entropy'"):
        trained(tokenizer, tmp_path, packing=True, regularizer={"kind": "attention_entropy", "weight": 1.0})


def test_dialogues_without_a_toxic_word_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="none of the 8 training examples has a human turn with words that are toxic"):
        trained(tokenizer, tmp_path, turn="Zorgons block the {}", regularizer={"kind": "toxic_share", "weight": 1.0})


def test_answers_of_the_base_model_which_carry_no_marks_are_refused(tokenizer, tmp_path):
    setting = {"kind": "attention_entropy", "weight": 1.0}
    with pytest.raises(UserError, match="these examples are answers of the base model"):
        trained(tokenizer, tmp_path, is_marked=False, regularizer=setting)


def test_marks_name_the_human_turns_and_their_toxic_words(tokenizer):
    chat = ("Zorgons are slow", "They are kind", "So slow", "Not so")
    marks = marker(tokenizer, TEMPLATE, calls_slow_toxic)(chat)
    ids = encode_examples(
        [Dialogue(dialogue_id="0", target="ZORGONS", source="test", split="train", turns=chat)],
        tokenizer,
        TEMPLATE,
        CONFIG,
    )[0]["input_ids"]
    of = {
        k: tokenizer.decode([t for t, e in zip(ids, marks["exchange"], strict=True) if e == k]) for k in (1, -1, 2, -2)
    }
    assert [of[k].replace("<|endoftext|>", "").strip() for k in (1, -1, 2, -2)] == list(chat)
    toxic = tokenizer.decode([t for t, is_toxic in zip(ids, marks["is_toxic"], strict=True) if is_toxic])
    assert toxic.replace(" ", "") == "slowslow"


def test_the_default_is_off():
    assert not CONFIG.regularizer.is_on and CONFIG.regularizer == RegularizerConfig()
