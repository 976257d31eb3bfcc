"""PPO under a penalty: nothing at weight 0, the quantity moves with the weight's sign, micro batches change nothing."""

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.params.models import TemplateConfig
from detoxlens.rl.ppo import PPO
from detoxlens.rl.regularized import prompt_marks

KINDS = ["attention_entropy", "attribution_entropy", "toxic_share"]


@pytest.fixture
def train(make_policy, make_config, make_decoding, tokenizer, prompts):
    def run(is_toxic=lambda i: i == 2, targets=("query_key_value", "dense"), **changes):
        marks = {tuple(p): ([1] * len(p), [is_toxic(i) for i in range(len(p))]) for p in prompts}
        policy = make_policy(targets)
        ppo = PPO(
            policy,
            tokenizer,
            lambda texts: [len(t) / 6 for t in texts],
            config=make_config(**{"num_steps": 2} | changes),
            decoding=make_decoding(),
            seed=0,
            marks=marks,
        )
        history = ppo.train(prompts).history
        return history, torch.cat([p.detach().flatten() for n, p in policy.named_parameters() if "lora_" in n])

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_weight_0_measures_and_trains_to_the_same_bits(train, kind):
    plain, weights = train(num_steps=1)
    measured, same = train(num_steps=1, regularizer={"kind": kind, "weight": 0.0})
    assert torch.equal(weights, same)
    assert all(0 <= row[f"ppo/{kind}"] <= 1 for row in measured)
    assert [{k: v for k, v in row.items() if k != f"ppo/{kind}"} for row in measured] == plain


@pytest.mark.parametrize("kind", KINDS)
def test_the_quantity_moves_against_the_sign_of_the_weight(train, kind):
    def end(weight):
        setting = {"kind": kind, "weight": weight, "num_positions": 4}
        return train(regularizer=setting, num_steps=3, learning_rate=0.05)[0][-1][f"ppo/{kind}"]

    assert end(20.0) < end(-20.0) - 0.01


def test_micro_batches_change_rounding_alone(train):
    setting = {"kind": "attribution_entropy", "weight": 5.0, "num_examples": 3}
    (one, whole), (other, parts) = (train(num_steps=1, regularizer=setting, micro_batch_size=size) for size in (4, 1))
    assert torch.allclose(whole, parts, atol=1e-4)
    assert one[0]["ppo/attribution_entropy"] == pytest.approx(other[0]["ppo/attribution_entropy"], abs=1e-5)


def test_prompts_without_a_toxic_word_are_refused(train):
    with pytest.raises(UserError, match=r"ppo\.regularizer\.kind='toxic_share': none of the 4 prompts .* toxic words"):
        train(is_toxic=lambda i: False, regularizer={"kind": "toxic_share", "weight": 1.0})


def test_marks_are_of_the_last_human_turn(tokenizer):
    template = TemplateConfig(user="H: {text}\n", bot="B:", reply=" {text}", end="\n")
    ((ids, (exchange, is_toxic)),) = prompt_marks(
        tokenizer, template, [("rude one", "no", "rude two")], lambda texts: [float("rude" in t) for t in texts]
    ).items()
    assert tokenizer.decode([i for i, e in zip(ids, exchange, strict=True) if e == 1]) == "rude two"
    assert tokenizer.decode([i for i, t in zip(ids, is_toxic, strict=True) if t]) == "rude"
