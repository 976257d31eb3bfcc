"""Occlusion: a forward per replaced token, against Inseq's forward per token and target, and a slow loop."""

from __future__ import annotations

import pytest
import torch

from detoxlens.attribution import attribute, occlusion
from tests.attribution.tiny import COMPLETIONS, PROMPTS, max_difference, tiny_model


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon_alibi", "llama", "opt"])
@pytest.mark.parametrize("target", ["probability", "log_probability"])
def test_it_is_the_loop_over_replaced_tokens_and_targets(architecture, target, monkeypatch):
    monkeypatch.setattr(occlusion, "ROWS_PER_PASS", 3)
    model = tiny_model(architecture, dtype=torch.float64)
    found = attribute(
        model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, method="occlusion", target=target, baseline_id=1
    )

    def value(ids, token):
        with torch.no_grad():
            p = model(torch.tensor([ids])).logits[0, -1].softmax(-1)[token]
        return (p if target == "probability" else p.log()).item()

    for prompt, completion, ours in zip(PROMPTS, COMPLETIONS, found, strict=True):
        rows = []
        for t, token in enumerate(completion):
            before = [*prompt, *completion[:t]]
            whole = value(before, token)
            row = [abs(whole - value([*before[:j], 1, *before[j + 1 :]], token)) for j in range(len(before))]
            rows.append([x / sum(row) for x in row])
        assert max_difference(ours.scores, rows) < 1e-8
        assert ours.token_prob[0] == pytest.approx(
            value(prompt, completion[0])
            if target == "probability"
            else torch.tensor(value(prompt, completion[0])).exp()
        )


def test_a_token_that_changes_nothing_anywhere_is_a_null_row():
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    (found,) = attribute(model, prompt_ids=[[5, 6]], completion_ids=[[7]], method="occlusion")
    assert (found.status, found.scores) == ("zero_gradient", None)
