"""Models that a penalty cannot be computed on, settings that say nothing, and whose words are toxic."""

from types import SimpleNamespace

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.params.section import parse
from detoxlens.regularization.regularizer import Regularizer, check_regularizer
from detoxlens.regularization.toxic_tokens import judge_of, toxic_tokens


def penalty(kind, weight=1.0):
    return Regularizer(RegularizerConfig(kind=kind, weight=weight), seed=0, section="sft")


class Once(torch.autograd.Function):
    """An operation without a second derivative."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize("kind", ["attention_entropy", "attribution_entropy", "toxic_share"])
def test_the_demos_architectures_pass(make_policy, kind):
    for architecture in ("gpt_neox", "falcon"):
        check_regularizer(penalty(kind), make_policy(architecture, dtype=torch.float32))


def test_a_model_without_a_second_derivative_is_refused_for_attribution_alone(make_policy):
    policy = make_policy(dtype=torch.float32)
    norm = policy.get_base_model().gpt_neox.final_layer_norm
    norm.register_forward_hook(lambda module, args, output: Once.apply(output))
    with pytest.raises(UserError, match=r"sft.regularizer.kind='attribution_entropy': GPTNeoX.* differentiated twice"):
        check_regularizer(penalty("attribution_entropy"), policy)
    check_regularizer(penalty("attention_entropy"), policy)
    check_regularizer(penalty("attribution_entropy", weight=0.0), policy)


def test_a_model_whose_attention_shows_no_weights_is_refused_for_attention_alone(make_policy):
    policy = make_policy(dtype=torch.float32)
    inner = policy.get_base_model()
    forward = inner.forward

    def without_attentions(*args, **kwargs):
        found = forward(*args, **kwargs)
        found.attentions = None
        return found

    inner.forward = without_attentions
    with pytest.raises(UserError, match="give no attention probabilities"):
        check_regularizer(penalty("attention_entropy"), policy)
    check_regularizer(penalty("toxic_share"), policy)


def test_an_adapter_that_the_penalty_does_not_reach_is_refused(make_policy):
    policy = make_policy(dtype=torch.float32).requires_grad_(False)
    last = policy.get_base_model().gpt_neox.layers[1].attention.dense.lora_B["default"].weight
    last.requires_grad_(True)  # behind the last attention's probabilities
    with pytest.raises(UserError, match="reaches the adapter"):
        check_regularizer(penalty("attention_entropy"), policy)


def test_a_weight_without_a_kind_says_nothing_and_is_refused():
    with pytest.raises(UserError, match=r"ppo.regularizer.*weight=0.5 without a kind"):
        parse(PpoConfig, {"num_steps": 1, "regularizer": {"weight": 0.5}}, "ppo")


def test_a_service_cannot_be_asked_about_parts_of_turns():
    with pytest.raises(UserError, match=r"sft\.regularizer\.scorer='perspective' is a service"):
        judge_of(SimpleNamespace(name="perspective", source="service"), section="sft")


def test_toxic_words_of_each_turn_are_marked_on_their_tokens():
    pieces = ("<human>:", " you", " id", "iot", "\n", "<bot>:", " Sorry", "\n", "fine", " id", "iot")
    exchange = [0, 1, 1, 1, 0, 0, -1, 0, 2, 2, 2]

    def judge(texts):
        return [float("idiot" in text and "fine" not in text) for text in texts]

    marked = toxic_tokens({1: "you idiot", 2: "fine idiot"}, exchange, pieces, judge)
    assert marked == [False, False, True, True] + [False] * 7  # the second turn is not toxic
