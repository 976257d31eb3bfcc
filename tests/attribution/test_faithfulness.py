"""The deletion test and the randomisation check."""

from __future__ import annotations

import json

import pytest
import torch

from detoxlens.attribution import attribute
from detoxlens.attribution.faithfulness import check_faithfulness, rank_correlation, shuffled, top_tokens
from tests.attribution.tiny import tiny_model

PROMPTS = [[5, 9, 44, 2, 17, 60, 31, 12, 80, 33], [7, 8, 21, 22, 23], [3]]
COMPLETIONS = [[8, 70, 3, 41], [9, 4], [5]]


def check(model, **changes):
    found = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    settings = {"fraction": 0.2, "steps_per_sequence": 2, "num_random": 2, "seed": 0} | changes
    return found, check_faithfulness(model, found, **settings)


def test_top_tokens_are_the_largest_scores_in_order_of_position():
    assert top_tokens([0.1, 0.5, 0.2, 0.5], 2) == [1, 3]
    assert top_tokens([0.3, 0.3, 0.3], 2) == [0, 1]


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == 1.0
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1.0
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / 3**0.5)  # ranks 1.5 1.5 3 against 1 2 3
    assert rank_correlation([1, 1], [1, 2]) is None


def test_the_drops_are_those_of_deleting_tokens_by_hand():
    model = tiny_model("gpt_neox", dtype=torch.float64)
    (first, *_), result = check(model, steps_per_sequence=1)
    top = top_tokens(first.scores[0][:10], 2)  # 20 % of ten tokens

    def prob(prompt):
        with torch.no_grad():
            return model(torch.tensor([prompt])).logits[0, -1].softmax(-1)[8].item()

    whole = prob(PROMPTS[0])
    without = prob([t for j, t in enumerate(PROMPTS[0]) if j not in top])
    alone = prob([PROMPTS[0][j] for j in top])
    assert result.comprehensiveness.attributed[0] == pytest.approx(whole - without, abs=1e-6)
    assert result.sufficiency.attributed[0] == pytest.approx(whole - alone, abs=1e-6)


def test_a_prompt_of_one_token_is_left_out_and_the_summary_is_json():
    _, result = check(tiny_model("gpt_neox"))
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert summary["num_sequences"] == 2
    assert summary["num_tokens"] == 4
    assert -1 <= summary["randomization"]["rank_correlation"] <= 1


def test_nothing_to_test_is_said_with_nulls():
    summary = check_faithfulness(
        tiny_model("gpt_neox"), [], fraction=0.2, steps_per_sequence=1, num_random=1, seed=0
    ).summary()
    assert summary["num_sequences"] == 0
    assert summary["comprehensiveness"]["difference"] is None


def test_the_seed_decides_the_random_choices_and_nothing_else():
    model = tiny_model("gpt_neox")
    (_, a), (_, b), (_, c) = check(model), check(model), check(model, seed=1)
    assert a == b
    assert a.comprehensiveness.attributed == c.comprehensiveness.attributed
    assert a.comprehensiveness.random != c.comprehensiveness.random


def test_shuffling_keeps_each_tensors_entries_and_leaves_the_model_alone():
    model = tiny_model("gpt_neox")
    before = {n: p.clone() for n, p in model.named_parameters()}
    other = dict(shuffled(model, seed=0).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert torch.equal(parameter.flatten().sort().values, other[name].flatten().sort().values)
    assert not torch.equal(other["lm_head.weight"], before["lm_head.weight"])
