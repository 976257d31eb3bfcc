"""The deletion test and the randomisation check."""

from __future__ import annotations

import json

import pytest
import torch

from detoxlens.attribution import attribute
from detoxlens.attribution.faithfulness import Subject, check_faithfulness, shuffled, top_tokens
from tests.attribution.tiny import tiny_model

PROMPTS = [[5, 9, 44, 2, 17, 60, 31, 12, 80, 33], [7, 8, 21, 22, 23], [3, 4]]
USERS = [(1, 2, 3, 4, 5, 6, 7, 8), (0, 1, 2, 3, 4), (1,)]
"""Positions of the user's tokens: the first prompt has template around them, the last one a single one."""
COMPLETIONS = [[8, 70, 3, 41], [9, 4], [5]]


def check(model, **changes):
    found = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    sample = [Subject(attribution=a, user_tokens=user) for a, user in zip(found, USERS, strict=True)]
    settings = {"fractions": [0.1, 0.25], "steps_per_sequence": 2, "num_random": 2, "seed": 0} | changes
    return found, check_faithfulness(model, sample, **settings)


def test_top_tokens_are_the_largest_scores_in_order_of_position():
    assert top_tokens([0.1, 0.5, 0.2, 0.5], 2) == [1, 3]
    assert top_tokens([0.3, 0.3, 0.3], 2) == [0, 1]


def test_the_drops_are_those_of_deleting_the_users_tokens_by_hand():
    model = tiny_model("gpt_neox", dtype=torch.float64)
    (first, *_), result = check(model, steps_per_sequence=1)
    prompt, user = PROMPTS[0], USERS[0]
    top = {user[k] for k in top_tokens([first.scores[0][j] for j in user], 2)}  # 25 % of eight tokens

    def log_odds(left):
        with torch.no_grad():
            p = model(torch.tensor([left])).logits[0, -1].softmax(-1)[8]
        return (p / (1 - p)).log().item()

    without = log_odds([t for j, t in enumerate(prompt) if j not in top])
    alone = log_odds([t for j, t in enumerate(prompt) if j in top or j not in user])  # the template stays
    quarter = result.deletion[1]
    assert quarter.fraction == 0.25
    assert quarter.comprehensiveness.attributed[0] == pytest.approx(log_odds(prompt) - without, abs=1e-5)
    assert quarter.sufficiency.attributed[0] == pytest.approx(log_odds(prompt) - alone, abs=1e-5)


def test_at_least_one_token_is_deleted_and_never_all_of_them():
    _, result = check(tiny_model("gpt_neox"), fractions=[0.01, 0.99])
    for of in result.deletion:
        assert all(drop != 0 for drop in (*of.comprehensiveness.attributed, *of.sufficiency.attributed))


def test_a_prompt_with_one_token_of_the_users_is_left_out_and_counted():
    _, result = check(tiny_model("gpt_neox"))
    found = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert (found["num_sequences"], found["num_left_out"], found["num_tokens"]) == (2, 1, 4)
    assert [of["fraction"] for of in found["deletion"]] == [0.1, 0.25]
    assert all(-1 <= r <= 1 for r in found["randomized_rank_correlation"])


def test_nothing_to_test_gives_no_numbers():
    found = check_faithfulness(
        tiny_model("gpt_neox"), [], fractions=[0.2], steps_per_sequence=1, num_random=1, seed=0
    ).as_json()
    assert found["num_sequences"] == 0
    assert found["deletion"][0]["comprehensiveness"]["attributed"] == ()


def test_the_seed_decides_the_random_choices_and_nothing_else():
    model = tiny_model("gpt_neox")
    (_, a), (_, b), (_, c) = check(model), check(model), check(model, seed=1)
    assert a == b
    ours, theirs = a.deletion[1].comprehensiveness, c.deletion[1].comprehensiveness
    assert ours.attributed == theirs.attributed
    assert ours.random != theirs.random


def test_shuffling_keeps_each_tensors_entries_and_leaves_the_model_alone():
    model = tiny_model("gpt_neox")
    before = {n: p.clone() for n, p in model.named_parameters()}
    other = dict(shuffled(model, seed=0).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert torch.equal(parameter.flatten().sort().values, other[name].flatten().sort().values)
    assert not torch.equal(other["lm_head.weight"], before["lm_head.weight"])
