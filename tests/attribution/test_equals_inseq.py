"""The reference: Inseq's `attribute(...).aggregate()` on random models of every architecture."""

from __future__ import annotations

import pytest
import torch

from detoxlens.attribution import attribute
from tests.attribution.tiny import ARCHITECTURES, inseq_scores, max_difference, tiny_model, with_lora

PROMPT, COMPLETION = [5, 9, 44, 2, 17, 60, 31], [8, 70, 3, 41, 12]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_input_x_gradient_equals_inseq_to_1e_5_in_float32(name):
    model = tiny_model(name)
    (ours,) = attribute(model, prompt_ids=[PROMPT], completion_ids=[COMPLETION])
    assert max_difference(ours.scores, inseq_scores(model, PROMPT, COMPLETION, "input_x_gradient")) < 1e-5


@pytest.mark.parametrize("name", ["gpt_neox", "falcon_multi_query", "gpt2"])
def test_a_lora_model_equals_inseq_on_the_merged_model_to_1e_8_in_float64(name):
    model = with_lora(tiny_model(name, dtype=torch.float64)).double()
    results = {
        method: attribute(model, prompt_ids=[PROMPT], completion_ids=[COMPLETION], method=method)[0].scores
        for method in ("input_x_gradient", "saliency")
    }
    merged = model.merge_and_unload()
    for method, scores in results.items():
        assert max_difference(scores, inseq_scores(merged, PROMPT, COMPLETION, method)) < 1e-8


@pytest.mark.parametrize("target", ["probability", "log_probability"])
def test_integrated_gradients_equal_inseq_along_the_path_from_its_unknown_token(target):
    model = tiny_model("gpt_neox", dtype=torch.float64)
    (ours,) = attribute(
        model,
        prompt_ids=[PROMPT],
        completion_ids=[COMPLETION],
        method="integrated_gradients",
        target=target,
        num_path_steps=20,
        baseline_id=1,  # the tokenizer's unknown token, Inseq's baseline
    )
    name = {"probability": "probability", "log_probability": "logprob"}[target]
    kwargs = {"n_steps": 20}
    if name == "logprob":
        kwargs, name = {**kwargs, "logprob": True}, "probability"
    theirs = inseq_scores(model, PROMPT, COMPLETION, "integrated_gradients", target=name, **kwargs)
    assert max_difference(ours.scores, theirs) < 1e-8
