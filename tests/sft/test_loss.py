"""The loss that is learnt from is that of the model's own logits, whatever TRL makes of its output layer."""

from __future__ import annotations

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import examine
from detoxlens.models.fused_head import fused_loss_is_right
from detoxlens.rl.groups import GroupTrainer
from detoxlens.sft.loss import trainer_class
from tests.architectures import log_probs_by_hand, random_model
from tests.attribution.tiny import VOCAB, word_tokenizer
from tests.test_architectures import COMPLETIONS, GREEDY, PPO_CONFIG, PROMPTS, SFT, adapted, fine_tuned

pytestmark = pytest.mark.filterwarnings("default")  # of deprecated models
PAD = VOCAB - 1


@pytest.mark.parametrize(
    ("name", "right", "left"),
    [
        ("llama", True, True),
        ("cohere", True, True),  # a scale that TRL knows
        ("gpt2", True, False),  # learnt positions, and TRL gives none
        ("roformer", False, False),  # a transform between backbone and output layer
        ("xlstm", False, False),  # a cap that TRL does not know
    ],
)
def test_trls_loss_is_tried_on_two_rows(name, right, left):
    model = adapted(name)
    forward = model.get_base_model().forward
    found = [fused_loss_is_right(model, filler_id=PAD, padding=side) for side in ("right", "left")]
    assert found == [right, left]
    assert model.get_base_model().forward == forward  # TRL's patch is gone


@pytest.mark.parametrize("name", ["roformer", "doge"])
def test_the_validation_loss_is_the_mean_nats_of_plain_passes(name):
    """doge is a mixture of experts, to whose loss TRL would add how evenly the experts are used."""
    assert fine_tuned(name) == ("right" if name == "doge" else "slower")


def test_own_logits_and_trls_fused_ones_give_the_same_gradients(monkeypatch, tmp_path, caplog):
    found = {}
    for own in (False, True):
        with monkeypatch.context() as m:
            if own:
                m.setattr("detoxlens.sft.loss.fused_loss_is_right", lambda *_, **__: False)
            torch.manual_seed(0)
            found[own] = trained_weights(tmp_path / str(own))
    assert (found[True] - found[False]).abs().max() < 1e-5
    assert any("TRL's loss leaves out a part" in r.message for r in caplog.records if r.levelno == logging.WARNING)


def trained_weights(folder):
    from detoxlens.sft.train import IGNORED, fine_tune

    policy = adapted("llama")
    examples = [
        {"input_ids": [*p, *c], "labels": [IGNORED] * len(p) + c} for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    fine_tune(
        policy,
        word_tokenizer(),
        train=examples,
        validation=examples,
        config=SFT,
        seed=0,
        checkpoints=folder,
        on_step=lambda *_: None,
    )
    return torch.cat([p.detach().flatten() for n, p in policy.named_parameters() if "lora_" in n])


def test_packing_and_an_adapter_on_the_output_layer_are_refused_where_trl_cannot():
    model = adapted("roformer")
    with pytest.raises(UserError, match=r"sft\.packing=true: TRL's loss leaves out a part of RoFormerForCausalLM"):
        trainer_class(model, examine(model, pad_token_id=PAD), packing=True)
    headed = get_peft_model(random_model("llama").float(), LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with pytest.raises(UserError, match=r"sft: lora\.target_modules has the output layer"):
        trainer_class(headed, examine(headed, pad_token_id=PAD), packing=False)


def test_rloo_is_refused_for_a_model_whose_positions_trl_leaves_out():
    with pytest.raises(UserError, match=r"rloo: TRL pads prompts on the left .* GPT2LMHeadModel .*Use algorithm: ppo"):
        GroupTrainer(
            adapted("gpt2"),
            word_tokenizer(),
            len,
            algorithm="rloo",
            config=PPO_CONFIG,
            seed=0,
            decoding=GREEDY.model_copy(update={"temperature": 1.0}),
        )


def test_own_loss_by_hand_with_dropout_off():
    """Two rows of different lengths, right padded: the mean over both rows' labelled tokens."""
    model = adapted("roformer")
    make = trainer_class(model, examine(model, pad_token_id=PAD), packing=False)
    rows = [[5, 9, 7, 30], [8, 4]]
    inputs = {
        "input_ids": torch.tensor([rows[0], [*rows[1], PAD, PAD]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, -100, 7, 30], [-100, 4, -100, -100]]),
    }
    loss = make.compute_loss(object.__new__(make), model.eval(), inputs)
    logs = log_probs_by_hand(model, rows[0][:2], rows[0][2:]) + log_probs_by_hand(model, rows[1][:1], rows[1][1:])
    assert loss.item() == pytest.approx(-sum(logs) / 3, abs=1e-4)
    assert isinstance(model.get_output_embeddings(), nn.Linear)
