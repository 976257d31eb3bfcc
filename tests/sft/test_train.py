"""Counter-narrative fine-tuning: the loss mask by hand, the best adapter kept, resume, and what goes wrong."""

import pytest
import torch

from detoxlens.config import TemplateConfig
from detoxlens.errors import UserError
from detoxlens.models.lora import LoraConfig, add_adapter
from detoxlens.models.tiny import TinyConfig, build, causal_lm_loss, train_tokenizer
from detoxlens.records import Dialogue
from detoxlens.sft.config import SftConfig
from detoxlens.sft.train import IGNORED, encode_examples, fine_tune, num_steps

TEMPLATE = TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n")
TINY = TinyConfig(
    vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, context_length=128, num_examples=100, rude_share=0.5,
    counter_share=0.1, prompt_loss_weight=0.1, batch_size=4, num_steps=6, learning_rate=0.01, weight_decay=0.0,
)  # fmt: skip
CONFIG = SftConfig(
    loss_on="replies", examples="dialogues", num_epochs=3, learning_rate=0.02, weight_decay=0.0, warmup_steps=1,
    batch_size=4, gradient_accumulation_steps=1, max_length=128, packing=False, group_by_length=False,
    gradient_checkpointing=False, eval_every=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["<human>: Zorgons are slow\n<bot>: Zorgons are kind"] * 4, 300)


def dialogue(*turns, split="train"):
    return Dialogue(dialogue_id="0", target="ZORGONS", source="test", split=split, turns=turns)


def test_loss_is_on_the_replies_and_their_end_alone(tokenizer):
    (example,) = encode_examples([dialogue("Zorgons are slow", "Zorgons are kind")], tokenizer, TEMPLATE, CONFIG)
    learnt = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(learnt) == " Zorgons are kind<|endoftext|>"
    assert tokenizer.decode(example["input_ids"]).startswith("<human>: Zorgons are slow\n<bot>:")


def test_the_authors_way_is_every_prefix_and_every_token(tokenizer):
    authors = CONFIG.model_copy(update={"loss_on": "all", "examples": "prefixes"})
    examples = encode_examples([dialogue("a", "b", "c", "d")], tokenizer, TEMPLATE, authors)
    assert [tokenizer.decode(e["input_ids"]) for e in examples] == [
        "<human>: a\n<bot>: b<|endoftext|>",
        "<human>: a\n<bot>: b<|endoftext|>\n<human>: c\n<bot>: d<|endoftext|>",
    ]
    assert all(e["labels"] == e["input_ids"] for e in examples)


def test_an_example_cut_before_its_reply_teaches_nothing_and_is_left_out(tokenizer):
    short = CONFIG.model_copy(update={"max_length": 8})
    assert encode_examples([dialogue("Zorgons are slow " * 9, "No")], tokenizer, TEMPLATE, short) == []


def test_number_of_steps_by_hand():  # ceil(10 / 4) = 3 batches; accumulation 2 -> 2 steps; 3 epochs -> 6
    assert num_steps(10, CONFIG.model_copy(update={"gradient_accumulation_steps": 2})) == 6


def _policy():
    torch.manual_seed(0)
    model = build("gpt_neox", TINY, vocab_size=300)
    return add_adapter(model, LoraConfig(r=2, alpha=4, dropout=0.1, target_modules=["query_key_value", "dense"]))


def _flat(policy):
    return torch.cat([p.detach().flatten() for n, p in policy.named_parameters() if "lora_" in n])


class Killed(Exception):
    pass


def _run(tokenizer, folder, config=CONFIG, *, val_reply="They mend the {}", kill_after=None):
    places = ["tram", "park", "pool", "market", "bridge", "square", "garden", "library"]
    train, val = (
        encode_examples(
            [dialogue(f"Zorgons block the {p}", reply.format(p)) for p in part], tokenizer, TEMPLATE, config
        )
        for part, reply in ((places, "They mend the {}"), (places[:3], val_reply))
    )
    policy, done = _policy(), 0

    def on_step(num_steps, num_done, row):
        nonlocal done
        done += num_steps
        if done == kill_after:
            raise Killed

    history = fine_tune(
        policy, tokenizer, train=train, validation=val, config=config, seed=0, checkpoints=folder, on_step=on_step
    )
    return history, policy, val


def _val_loss(history):
    return [row["sft/val_loss"] for row in history if "sft/val_loss" in row]


def test_validation_loss_falls(tokenizer, tmp_path):
    losses = _val_loss(_run(tokenizer, tmp_path)[0])
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_the_adapter_with_the_lowest_validation_loss_is_kept(tokenizer, tmp_path):
    wild = CONFIG.model_copy(update={"learning_rate": 0.3, "num_epochs": 6, "eval_every": 1})
    history, policy, val = _run(tokenizer, tmp_path, wild, val_reply="QUITE ANOTHER {}")
    losses = _val_loss(history)
    assert (
        min(losses) < losses[-1]
    )  # what is learnt does not help here, so the last is not the best, else the test shows nothing
    ids = [e["input_ids"] for e in val]
    weights = [[float(label != IGNORED) for label in e["labels"]] for e in val]
    with torch.no_grad():
        kept = causal_lm_loss(policy.eval(), ids, weights, pad_token_id=tokenizer.pad_token_id)
    assert kept.item() == pytest.approx(min(losses), abs=1e-4)


def test_a_killed_run_continues_to_the_same_bits(tokenizer, tmp_path):
    history, policy, _ = _run(tokenizer, tmp_path / "whole")
    with pytest.raises(Killed):
        _run(tokenizer, tmp_path / "killed", kill_after=3)
    resumed_history, resumed, _ = _run(tokenizer, tmp_path / "killed")
    assert resumed_history == history
    assert torch.equal(_flat(resumed), _flat(policy))


def test_an_empty_split_is_named(tokenizer, tmp_path):
    with pytest.raises(UserError, match="the split 'val' holds no dialogue"):
        fine_tune(
            _policy(), tokenizer, train=[{"input_ids": [5], "labels": [5]}], validation=[], config=CONFIG, seed=0,
            checkpoints=tmp_path, on_step=lambda *_: None,
        )  # fmt: skip
