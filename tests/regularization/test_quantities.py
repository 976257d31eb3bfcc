"""The three quantities by hand and by a slow loop, and their gradients by finite differences in float64."""

import math

import numpy as np
import pytest
import torch

from detoxlens.attribution.api import attribute
from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.regularization.attention_entropy import normalized_entropy
from detoxlens.regularization.attribution import share_of
from detoxlens.regularization.columns import MarkedSequence
from detoxlens.regularization.regularizer import Regularizer, attentions_of, differentiable_twice

LONG = MarkedSequence(
    ids=(3, 9, 4, 7, 5, 11, 2, 8), exchange=(0, 1, 1, 1, 0, -1, -1, -1), is_toxic=(0, 0, 1, 0, 0, 0, 0, 0)
)
SHORT = MarkedSequence(ids=(3, 6, 1, 4, 9), exchange=(0, 1, 1, -1, -1), is_toxic=(0, 1, 0, 0, 0))
KINDS = ["attention_entropy", "attribution_entropy", "toxic_share"]


def penalty(kind, **settings):
    config = RegularizerConfig(**{"kind": kind, "weight": 1.0, "num_positions": 2} | settings)
    return Regularizer(config, seed=0, section="sft")


def values(regularizer, policy, sequences=(LONG, SHORT)):
    return regularizer.values(policy, sequences, [regularizer.rows(s, len(s.ids)) for s in sequences])


def test_normalized_entropy_by_hand():
    weights = torch.tensor([[9.0, 0.1, 0.1, 0.0], [9.0, 0.2, 0.1, 0.1]])
    columns = torch.tensor([[False, True, True, False], [False, True, True, True]])
    # [1/2, 1/2] over two columns; [1/2, 1/4, 1/4] over three: 1.5 ln 2 / ln 3
    assert normalized_entropy(weights, columns).tolist() == pytest.approx([1.0, 1.5 * math.log(2) / math.log(3)])
    alone = normalized_entropy(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[False, True, True]]))
    assert alone.item() == pytest.approx(0.0, abs=1e-9)


def test_share_by_hand():
    whole, part = torch.tensor([[False, True, True, True]]), torch.tensor([[False, False, True, False]])
    assert share_of(torch.tensor([[5.0, 1.0, 2.0, 1.0]]), part, whole).item() == pytest.approx(0.5)  # 2 / (1 + 2 + 1)


def test_attention_entropy_is_that_of_a_slow_loop_over_probabilities(make_policy):
    policy = make_policy().eval()
    for sequence, value in zip((LONG, SHORT), values(penalty("attention_entropy"), policy), strict=True):
        with torch.no_grad(), differentiable_twice(policy):
            layers = attentions_of(policy, torch.tensor([sequence.ids]))
        entropies = []
        for layer in layers:
            for position in range(len(sequence.ids) - 1):
                if sequence.exchange[position + 1] >= 0:
                    continue
                a = [layer[0, :, position, j].mean().item() for j, e in enumerate(sequence.exchange) if e == 1]
                p = [x / sum(a) for x in a]
                entropies.append(-sum(x * math.log(x) for x in p) / math.log(len(p)))
        assert value.item() == pytest.approx(np.mean(entropies), abs=1e-9)


def test_attribution_entropy_and_toxic_share_are_those_of_attribute(make_policy):
    policy = make_policy().eval()
    (result,) = attribute(policy, prompt_ids=[LONG.ids[:5]], completion_ids=[LONG.ids[5:]], method="input_x_gradient")
    entropies, shares = [], []
    for scores in result.scores:
        p = [x / sum(scores[1:4]) for x in scores[1:4]]
        entropies.append(-sum(x * math.log(x) for x in p) / math.log(3))
        shares.append(p[1])
    for kind, expected in (("attribution_entropy", entropies), ("toxic_share", shares)):
        found = values(penalty(kind, num_positions=9), policy, [LONG])
        assert found.item() == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(make_policy, architecture, kind):
    policy, regularizer, step = make_policy(architecture), penalty(kind), 1e-5
    trained = [p for p in policy.parameters() if p.requires_grad]
    whole = values(regularizer, policy).sum()
    gradients = torch.autograd.grad(whole, trained, allow_unused=True, materialize_grads=True)
    torch.manual_seed(1)
    for _ in range(2):
        direction = [torch.randn_like(p) for p in trained]
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)).item()
        ends = []
        for distance in (step, -2 * step):
            with torch.no_grad():
                for p, d in zip(trained, direction, strict=True):
                    p.add_(d, alpha=distance)
            ends.append(values(regularizer, policy).sum().item())
        assert abs(slope) > 1e-4  # else agreement would show nothing
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)
        with torch.no_grad():
            for p, d in zip(trained, direction, strict=True):
                p.add_(d, alpha=step)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_company_nor_dropout_changes_a_value_and_the_model_is_left_as_it_was(make_policy, kind):
    policy, regularizer = make_policy(dropout=0.5).train(), penalty(kind, num_positions=9)
    together = values(regularizer, policy)
    alone = [values(regularizer, policy, [s]).item() for s in (LONG, SHORT)]
    assert together.tolist() == pytest.approx(alone, abs=1e-9)
    assert all(m.training for m in policy.modules())
    assert policy.config._attn_implementation == "sdpa"


def test_a_weight_of_zero_measures_without_a_graph(make_policy):
    for kind in KINDS:
        assert not values(penalty(kind, weight=0.0), make_policy()).requires_grad


def test_positions_and_examples_are_drawn_anew_by_name():
    regularizer = penalty("attribution_entropy", num_positions=1, num_examples=2)
    assert {int(regularizer.rows(LONG, step).positions[0]) for step in range(30)} == {4, 5, 6}
    assert {tuple(regularizer.drawn(3, step)) for step in range(30)} == {(0, 1), (0, 2), (1, 2)}
    assert regularizer.drawn(2, 0) == [0, 1]


def test_attention_entropy_takes_every_response_row():
    assert penalty("attention_entropy", num_positions=1).rows(LONG, 0).positions.tolist() == [4, 5, 6]
