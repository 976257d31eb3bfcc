"""The method-free check: two forwards per completion against a slow loop, and a model whose reliance is known."""

from __future__ import annotations

import math

import pytest
import torch

from detoxlens.attribution import reliance
from detoxlens.attribution.reliance import kl_bits, prompt_reliance
from tests.attribution.tiny import tiny_model

PROMPTS = [(5, 9, 44, 2, 17), (7, 8, 21), (3, 4, 6, 8)]
TEMPLATES = [(True, False, False, False, True), (True, False, False), (True, False, True, True)]
COMPLETIONS = [(8, 70, 3, 41), (9, 4), (5,)]


def test_kl_by_hand_and_a_token_that_p_excludes():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.5, 0.25]])
    assert kl_bits(p.log(), q.log()).tolist() == [pytest.approx(0.5)]  # .5 * log2(2) + .5 * log2(1)
    assert kl_bits(p.log(), p.log()).tolist() == [0.0]


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon_alibi"])
def test_it_is_the_loop_over_tokens_with_and_without_the_users_text(architecture, monkeypatch):
    model = tiny_model(architecture, dtype=torch.float64)
    monkeypatch.setattr(reliance, "MAX_LOGITS", 2 * 9 * 96)  # two sequences a pass
    found = prompt_reliance(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, is_template=TEMPLATES)

    def log2_probs(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1) / math.log(2)

    for prompt, template, completion, ours in zip(PROMPTS, TEMPLATES, COMPLETIONS, found, strict=True):
        alone = [token for token, of_template in zip(prompt, template, strict=True) if of_template]
        for t, token in enumerate(completion):
            p, q = log2_probs([*prompt, *completion[:t]]), log2_probs([*alone, *completion[:t]])
            assert ours.kl_bits[t] == pytest.approx((p.exp2() * (p - q)).sum().item(), abs=1e-9)
            assert ours.gain_bits[t] == pytest.approx((p[token] - q[token]).item(), abs=1e-9)


def test_a_prompt_without_a_users_token_tells_the_model_nothing():
    (found,) = prompt_reliance(
        tiny_model("gpt_neox"), prompt_ids=[(5, 9)], completion_ids=[(8, 7)], is_template=[(True, True)]
    )
    assert found.kl_bits == (0.0, 0.0) and found.gain_bits == (0.0, 0.0)


def test_without_a_template_token_there_is_nothing_to_compare_with():
    found = prompt_reliance(
        tiny_model("gpt_neox"),
        prompt_ids=[(5, 9), (5, 9)],
        completion_ids=[(8, 7), (8, 7)],
        is_template=[(False, False), (True, False)],
    )
    assert found[0] is None and found[1] is not None
