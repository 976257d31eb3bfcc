"""The reference: Inseq's `attribute(...).aggregate()`; every architecture, every method, with and without LoRA."""

from __future__ import annotations

import copy

import pytest
import torch

from detoxlens.attribution import attribute
from tests.attribution.tiny import ARCHITECTURES, inseq_scores, max_difference, tiny_model, trained_lora, with_lora

PROMPT, COMPLETION = [5, 9, 44, 2, 17, 60, 31], [8, 70, 3, 41, 12]
METHODS = ("input_x_gradient", "saliency", "integrated_gradients")
NUM_PATH_STEPS = 10
ROUNDS_TO_FLOAT32 = ("llama", "qwen2")
"""Their RMSNorm computes in float32 whatever the dtype: even in float64, sums in another order differ."""


def ours(model, prompt, completion, method):
    path = {"num_path_steps": NUM_PATH_STEPS, "baseline_id": 1} if method == "integrated_gradients" else {}
    (found,) = attribute(model, prompt_ids=[prompt], completion_ids=[completion], method=method, **path)
    assert found.status == "ok"
    return found.scores


def theirs(model, prompt, completion, method, **kwargs):
    """Inseq takes no PeftModel, so the adapter is merged; its baseline is the tokenizer's unknown token, 1."""
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    path = {"n_steps": NUM_PATH_STEPS} if method == "integrated_gradients" else {}
    return inseq_scores(merged, prompt, completion, method, **path, **kwargs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_equal_inseq_to_1e_5_in_float32(name, lora, method):
    model = with_lora(tiny_model(name)) if lora else tiny_model(name)
    found = ours(model, PROMPT, COMPLETION, method)
    assert max_difference(found, theirs(model, PROMPT, COMPLETION, method)) <= 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "gpt_neox",
        "falcon_multi_query",
        "gpt2",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("falcon_alibi", "falcon_grouped", "opt", "llama", "qwen2")),
    ],
)
def test_a_trained_lora_checkpoint_equals_inseq_to_1e_8_in_float64(name, record_property):
    model, texts = trained_lora(name)
    prompt, completion = texts[0][:7], texts[0][7:]
    (sure,) = attribute(model, prompt_ids=[prompt], completion_ids=[completion])
    assert max(sure.token_prob) > 0.8  # as trained models are; random ones say .01
    for method in METHODS:
        found, reference = {}, {}
        for dtype in (torch.float32, torch.float64):
            copied = copy.deepcopy(model).to(dtype)
            found[dtype] = ours(copied, prompt, completion, method)
            reference[dtype] = theirs(copied, prompt, completion, method)
        exact = reference[torch.float64]
        limit = 1e-6 if name in ROUNDS_TO_FLOAT32 else 1e-8
        assert max_difference(found[torch.float64], exact) <= limit, method
        for who, scores in (("ours", found), ("inseq", reference)):
            error = max_difference(scores[torch.float32], exact)
            record_property(f"{method}, {who} in float32", error)
            assert error <= 1e-4, (method, who)


@pytest.mark.parametrize("name", ["gpt_neox", "falcon_multi_query", "gpt2"])
def test_a_lora_model_equals_inseq_on_the_merged_model_to_1e_8_in_float64(name):
    model = with_lora(tiny_model(name, dtype=torch.float64)).double()
    found = {method: ours(model, PROMPT, COMPLETION, method) for method in METHODS[:2]}
    merged = model.merge_and_unload()
    for method, scores in found.items():
        assert max_difference(scores, theirs(merged, PROMPT, COMPLETION, method)) <= 1e-8


@pytest.mark.parametrize("target, kwargs", [("probability", {}), ("log_probability", {"logprob": True})])
def test_integrated_gradients_equal_inseq_for_both_targets_in_float64(target, kwargs):
    model = tiny_model("gpt_neox", dtype=torch.float64)
    (found,) = attribute(
        model,
        prompt_ids=[PROMPT],
        completion_ids=[COMPLETION],
        method="integrated_gradients",
        target=target,
        num_path_steps=NUM_PATH_STEPS,
        baseline_id=1,
    )
    assert max_difference(found.scores, theirs(model, PROMPT, COMPLETION, "integrated_gradients", **kwargs)) <= 1e-8
