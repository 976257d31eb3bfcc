"""Counter-narrative fine-tuning: the loss mask by hand, the best adapter kept, resume, and what goes wrong."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.jobs import save_timer
from detoxlens.models.lora import add_adapter
from detoxlens.models.tiny import build, causal_lm_loss, train_tokenizer
from detoxlens.params.lora import LoraConfig
from detoxlens.params.models import TemplateConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.sft.train import (
    IGNORED,
    encode_and_count,
    encode_examples,
    fine_tune,
    num_steps,
    training_sample,
    validation_sample,
)

TEMPLATE = TemplateConfig(user="<human>: {text}\n", bot="<bot>:", reply=" {text}", end="\n")
TINY = TinyConfig(
    vocab_size=300,
    hidden_size=16,
    num_layers=1,
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
    num_epochs=3,
    learning_rate=0.02,
    weight_decay=0.0,
    warmup_steps=1,
    batch_size=4,
    gradient_accumulation_steps=1,
    max_length=128,
    packing=False,
    group_by_length=False,
    gradient_checkpointing=False,
    eval_every=2,
)


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


def _policy(architecture="gpt_neox", dtype=torch.float32):
    torch.manual_seed(0)
    model = build(architecture, TINY, vocab_size=300).to(dtype)
    return add_adapter(model, LoraConfig(r=2, alpha=4, dropout=0.1, target_modules=["query_key_value", "dense"]))


def _flat(policy):
    return torch.cat([p.detach().flatten() for n, p in policy.named_parameters() if "lora_" in n])


class Killed(Exception):
    pass


def _run(tokenizer, folder, config=CONFIG, *, val_reply="They mend the {}", kill_after=None, policy=None):
    places = ["tram", "park", "pool", "market", "bridge", "square", "garden", "library"]
    train, val = (
        encode_examples(
            [dialogue(f"Zorgons block the {p}", reply.format(p)) for p in part], tokenizer, TEMPLATE, config
        )
        for part, reply in ((places, "They mend the {}"), (places[:3], val_reply))
    )
    policy, done = policy or _policy(), 0

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
    assert json.dumps(resumed_history) == json.dumps(history)  # the order of the keys too
    assert torch.equal(_flat(resumed), _flat(policy))


def test_a_run_shorter_than_its_first_checkpoint_is_saved_by_time_and_continues_to_the_same_bits(
    tokenizer, tmp_path, monkeypatch
):
    config = CONFIG.model_copy(update={"eval_every": 10, "num_epochs": 5})  # a mean of the loss every two steps
    history, policy, _ = _run(tokenizer, tmp_path / "whole", config)
    monkeypatch.setattr(save_timer, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        _run(tokenizer, tmp_path / "killed", config, kill_after=6)
    assert [p.name for p in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-4"]
    resumed_history, resumed, _ = _run(tokenizer, tmp_path / "killed", config)
    assert json.dumps(resumed_history) == json.dumps(history)
    assert torch.equal(_flat(resumed), _flat(policy))


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_run_that_was_killed_in_a_folder_since_moved_keeps_its_own_best_adapter(tokenizer, tmp_path, how):
    """Killed after its last checkpoint: what is left is to load the best one, by the path in the trainer's state."""
    wild = CONFIG.model_copy(update={"learning_rate": 0.3, "num_epochs": 6, "eval_every": 1})
    history, policy, _ = _run(tokenizer, tmp_path / "old", wild, val_reply="QUITE ANOTHER {}")
    assert min(_val_loss(history)) < _val_loss(history)[-1]
    how(tmp_path / "old", tmp_path / "new")
    for left in (tmp_path / "old").glob("*/adapter_model.safetensors"):
        left.write_bytes(b"of another run")
    _, resumed, _ = _run(tokenizer, tmp_path / "new", wild, val_reply="QUITE ANOTHER {}")
    assert torch.equal(_flat(resumed), _flat(policy))


def test_a_checkpoint_cut_short_by_a_kill_is_passed_over(tokenizer, tmp_path):
    _, policy, _ = _run(tokenizer, tmp_path / "whole")
    with pytest.raises(Killed):
        _run(tokenizer, tmp_path / "killed", kill_after=5)
    torn = tmp_path / "killed" / "checkpoint-4"
    (torn / "trainer_state.json").unlink()
    _, resumed, _ = _run(tokenizer, tmp_path / "killed")
    assert torch.equal(_flat(resumed), _flat(policy))


def test_training_stops_after_so_many_validations_without_a_lower_loss(tokenizer, tmp_path):
    wild = CONFIG.model_copy(update={"learning_rate": 0.3, "num_epochs": 20, "eval_every": 1, "patience": 2})
    losses = _val_loss(_run(tokenizer, tmp_path, wild, val_reply="QUITE ANOTHER {}")[0])
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2 < num_steps(8, wild)


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
def test_packed_examples_do_not_see_each_other_or_packing_is_refused(tokenizer, tmp_path, architecture):
    """Nothing is learnt at this rate, so the validation loss of packed rows must be the plain one, token for token."""
    still = CONFIG.model_copy(
        update={"learning_rate": 1e-12, "loss_on": "all", "packing": True, "num_epochs": 1, "eval_every": 1}
    )
    policy = _policy(architecture)
    if architecture == "falcon":  # its mask in transformers 5.23 ignores position ids
        with pytest.raises(UserError, match=r"sft.packing=true: FalconForCausalLM .* attend to the one packed before"):
            _run(tokenizer, tmp_path, still, policy=policy)
        return
    history, _, val = _run(tokenizer, tmp_path, still, policy=policy)
    ids = [e["input_ids"] for e in val]
    plain = causal_lm_loss(policy.eval(), ids, [[1.0] * len(i) for i in ids], pad_token_id=tokenizer.pad_token_id)
    assert _val_loss(history)[0] == pytest.approx(plain.item(), abs=1e-5)
    assert len(_val_loss(history)) == 1  # eight examples fit into one batch of packed rows


def test_grouping_by_length_saves_padding(tokenizer, tmp_path):
    train = [
        example
        for n in (1, 40, 2, 38) * 8
        for example in encode_examples([dialogue("Zorgons are slow", "kind " * n)], tokenizer, TEMPLATE, CONFIG)
    ]

    def num_positions(grouped):
        config = CONFIG.model_copy(update={"group_by_length": grouped, "num_epochs": 1, "eval_every": 8})
        policy, seen = _policy(), 0

        def count(_, inputs):
            nonlocal seen
            seen += inputs["input_ids"].numel()

        policy.register_forward_pre_hook(lambda module, args, kwargs: count(module, kwargs), with_kwargs=True)
        fine_tune(
            policy,
            tokenizer,
            train=train,
            validation=train[:1],
            config=config,
            seed=0,
            checkpoints=tmp_path / str(grouped),
            on_step=lambda *_: None,
        )
        return seen

    assert num_positions(True) < 0.85 * num_positions(False)


def test_gradient_checkpointing_changes_nothing_but_rounding(tokenizer, tmp_path):
    _, plain, _ = _run(tokenizer, tmp_path / "plain")
    _, frugal, _ = _run(tokenizer, tmp_path / "frugal", CONFIG.model_copy(update={"gradient_checkpointing": True}))
    torch.testing.assert_close(_flat(frugal), _flat(plain), rtol=1e-3, atol=1e-5)


def test_bfloat16_weights_train_a_float32_adapter(tokenizer, tmp_path):
    history, policy, _ = _run(tokenizer, tmp_path, policy=_policy(dtype=torch.bfloat16))
    losses = _val_loss(history)
    assert losses[-1] < losses[0]
    assert {p.dtype for n, p in policy.named_parameters() if "lora_" in n} == {torch.float32}
    assert {p.dtype for n, p in policy.named_parameters() if "lora_" not in n} == {torch.bfloat16}


def test_under_autocast_products_are_bfloat16_weights_float32_and_the_losses_nearly_the_same(tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"autocast": "bfloat16"})
    policy, seen = _policy(), set()
    layer = next(m for n, m in policy.named_modules() if n.endswith("query_key_value.base_layer"))
    layer.register_forward_hook(lambda module, args, output: seen.add(output.dtype) if module.training else None)
    history, policy, _ = _run(tokenizer, tmp_path / "bfloat16", config, policy=policy)
    exact, _, _ = _run(tokenizer, tmp_path / "float32")
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    assert _val_loss(history) == pytest.approx(_val_loss(exact), rel=0.01)
    assert _val_loss(history) != _val_loss(exact)


def test_an_empty_split_is_named(tokenizer, tmp_path):
    with pytest.raises(UserError, match="the split 'val' holds no dialogue"):
        fine_tune(
            _policy(),
            tokenizer,
            train=[{"input_ids": [5], "labels": [5]}],
            validation=[],
            config=CONFIG,
            seed=0,
            checkpoints=tmp_path,
            on_step=lambda *_: None,
        )


def test_the_validation_sample_is_the_same_wherever_it_is_drawn_and_a_larger_one_holds_it():
    dialogues = [replace(dialogue("a", "b", split="val"), dialogue_id=str(n)) for n in range(50)]
    few, more = validation_sample(dialogues, 5), validation_sample(dialogues, 20)
    assert len(few) == 5 and set(few) < set(more)
    assert validation_sample(dialogues[::-1], 5) == few[::-1]  # in the order given
    assert validation_sample(dialogues, None) == dialogues == validation_sample(dialogues, 99)


def test_a_training_shorter_than_an_epoch_reads_each_of_its_share_of_dialogues_once():
    dialogues = [replace(dialogue("a", "b"), dialogue_id=str(n)) for n in range(50)]
    part, config = training_sample(dialogues, CONFIG.model_copy(update={"num_epochs": 0.21}), seed=0)
    assert len(part) == 11 and config.num_epochs == 1  # ceil(10.5)
    assert [d for d in dialogues if d in part] == part  # in the order given
    assert training_sample(dialogues, CONFIG.model_copy(update={"num_epochs": 0.21}), seed=1)[0] != part
    assert training_sample(dialogues, CONFIG, seed=0) == (dialogues, CONFIG)  # all, as often as it says


def test_how_many_examples_are_cut_and_dropped_is_counted(tokenizer):
    short, long, hopeless = dialogue("a", "b"), dialogue("a", "kind " * 40), dialogue("slow " * 60, "No")
    config = CONFIG.model_copy(update={"max_length": 40})
    examples, cut = encode_and_count([short, long, hopeless], tokenizer, TEMPLATE, config)
    assert (cut.num_examples, cut.num_cut, cut.num_dropped, len(examples)) == (3, 2, 1, 2)
    assert str(cut) == (
        "2 of 3 training examples are longer than sft.max_length=40 tokens and cut there; 1 of them have no reply "
        "before and are dropped"
    )
    assert [e["input_ids"][-1] == tokenizer.eos_token_id for e in examples] == [True, False]
