"""`attribute`: what comes back, that company and padding do not change it, and what is refused."""

from __future__ import annotations

import pytest
import torch

from detoxlens.attribution import METHODS, attribute, engine, gradients
from detoxlens.attribution.api import runner_up_ids
from detoxlens.attribution.engine import Learnt
from detoxlens.common.errors import UserError
from tests.attribution.tiny import ARCHITECTURES, COMPLETIONS, PROMPTS, loop, max_difference, tiny_model, with_lora

METHODS_BY_GRADIENT = [name for name, backend in METHODS.items() if backend == "gradient"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_of_different_lengths_equals_one_backward_per_token(name):
    model = tiny_model(name, dtype=torch.float64, num_layers=3)
    results = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, method="saliency", batch_size=4)
    for prompt, completion, ours in zip(PROMPTS, COMPLETIONS, results, strict=True):
        assert max_difference(ours.scores, loop(model, prompt, completion, saliency=True)) < 1e-7


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_company_and_padding_change_a_score_by_at_most_1e_6(name):
    model = tiny_model(name)
    together = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, batch_size=4)
    alone = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, batch_size=1)
    assert max(max_difference(a.scores, b.scores) for a, b in zip(together, alone, strict=True)) <= 1e-6


def test_long_completions_are_cut_into_chunks_without_a_seam():
    model = tiny_model("gpt_neox", dtype=torch.float64)
    completion = [(7 * i) % 90 for i in range(40)]
    (ours,) = attribute(model, prompt_ids=[[4, 5, 6]], completion_ids=[completion])
    assert max_difference(ours.scores, loop(model, [4, 5, 6], completion)) < 1e-10


def test_the_probability_of_each_token_comes_with_it_and_rows_sum_to_one():
    model = tiny_model("gpt_neox")
    (ours,) = attribute(model, prompt_ids=[PROMPTS[0]], completion_ids=[COMPLETIONS[0]])
    ids = torch.tensor([PROMPTS[0] + COMPLETIONS[0]])
    with torch.no_grad():
        probs = model(ids).logits.softmax(-1)[0, len(PROMPTS[0]) - 1 : -1]
    expected = [probs[t, token].item() for t, token in enumerate(COMPLETIONS[0])]
    assert ours.token_prob == pytest.approx(expected, rel=1e-5)
    assert [sum(row) for row in ours.scores] == pytest.approx([1.0] * len(COMPLETIONS[0]))
    assert [len(row) for row in ours.scores] == [7, 8, 9, 10, 11]


def test_log_odds_stay_exact_where_the_probability_is_nearly_one():
    """At p = 1 - 1e-9, float32 p (1 - p) is 0 or noise; the log-odds' direction is that of float64."""
    sharp = tiny_model("gpt_neox", dtype=torch.float64)
    with torch.no_grad():
        sharp.lm_head.weight.mul_(2000.0)
    prompt = PROMPTS[0]
    with torch.no_grad():
        completion = [sharp(torch.tensor([prompt])).logits[0, -1].argmax().item()]
    (exact,) = attribute(sharp, prompt_ids=[prompt], completion_ids=[completion])
    (ours,) = attribute(sharp.float(), prompt_ids=[prompt], completion_ids=[completion])
    assert exact.token_prob[0] > 1 - 1e-6
    assert max_difference(ours.scores, exact.scores) < 1e-4


def test_contrastive_differentiates_the_logit_difference_to_the_other_token():
    model = tiny_model("gpt_neox", dtype=torch.float64)
    prompt, completion = PROMPTS[0], COMPLETIONS[0]
    (contrast,) = runner_up_ids(model, prompt_ids=[prompt], completion_ids=[completion])
    assert all(a != b for a, b in zip(contrast, completion, strict=True))
    (ours,) = attribute(
        model, prompt_ids=[prompt], completion_ids=[completion], target="contrastive", contrast_ids=[contrast]
    )
    expected = loop(model, prompt, completion, value=lambda z, t: z[completion[t]] - z[contrast[t]])
    assert max_difference(ours.scores, expected) < 1e-10


def test_integrated_gradients_close_the_gap_as_the_path_gets_finer():
    model = tiny_model("gpt_neox", dtype=torch.float64)
    gaps = [
        max(
            attribute(
                model,
                prompt_ids=[PROMPTS[0]],
                completion_ids=[COMPLETIONS[0]],
                method="integrated_gradients",
                num_path_steps=n,
                baseline_id=1,
            )[0].completeness_gap
        )
        for n in (4, 128)
    ]
    assert gaps[1] < 1e-3
    assert gaps[1] < gaps[0] / 10


def test_a_lora_model_is_left_as_it_was_trainable_and_in_training_mode():
    model = with_lora(tiny_model("gpt_neox")).train()
    model.base_model.model.config._attn_implementation = "eager"
    before = [(n, p.requires_grad) for n, p in model.named_parameters()]
    attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1])
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == before
    assert model.training
    assert model.base_model.model.config._attn_implementation == "eager"


def test_an_adapter_in_float32_on_a_bfloat16_model_is_attributed():
    """PEFT's default for a model in a short format."""
    model = with_lora(tiny_model("llama", dtype=torch.bfloat16))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    (found,) = attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1])
    assert found.status == "ok"


def test_a_slot_without_a_target_and_what_lies_behind_a_target_have_zero_gradient():
    model = tiny_model("llama")
    embeddings = model.get_input_embeddings()(torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]]))
    positions, valid = torch.tensor([[1, 2], [2, 2]]), torch.tensor([[True, True], [True, False]])
    with gradients.differentiable(model) as prepared:
        found, _ = gradients.target_gradients(prepared, embeddings, positions, valid, lambda z: z[..., 3])
    is_zero = (found == 0).all(-1)  # (targets, batch, seq)
    assert is_zero.tolist() == [
        [[False, False, True, True], [False, False, False, True]],
        [[False, False, False, True], [True, True, True, True]],
    ]


class Memory:
    """Room for `room` (sequence, target) slots per pass; more, and the pass fails as torch says it does."""

    def __init__(self, monkeypatch, room: int, error: Exception):
        self.room, self.error = room, error
        self.passes: list[tuple[int, int]] = []
        """(sequences, targets) of every pass that was tried."""
        self.real = gradients.target_gradients
        monkeypatch.setattr("detoxlens.attribution.engine.target_gradients", self)

    def __call__(self, prepared, embeddings, positions, valid, value):
        self.passes.append(tuple(positions.shape))
        assert len(self.passes) <= 60, "it tries again and again"  # a loop that does not halve must fail, not hang
        if positions.numel() > self.room:
            raise self.error
        return self.real(prepared, embeddings, positions, valid, value)


ON_ACCELERATOR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
ON_CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


ON_CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("error", [ON_ACCELERATOR, ON_CPU, ON_CUBLAS], ids=["accelerator", "cpu", "cublas"])
@pytest.mark.parametrize("method", ["input_x_gradient", "integrated_gradients"])
def test_running_out_of_memory_halves_the_chunk_and_then_the_group(monkeypatch, caplog, error, method):
    model = tiny_model("gpt_neox")
    prompts, completions = [[5, 9, 44, 2], [7, 8, 9, 1], [50, 51, 52, 53], [3, 4, 5, 6]], [[8, 7, 3, 4]] * 4
    given = {"prompt_ids": prompts, "completion_ids": completions, "method": method, "num_path_steps": 2}
    expected = attribute(model, **given, batch_size=4)
    memory = Memory(monkeypatch, room=2, error=error)
    found = attribute(model, **given, batch_size=4)
    assert max(max_difference(a.scores, b.scores) for a, b in zip(found, expected, strict=True)) <= 1e-6
    points = 2 if method == "integrated_gradients" else 1
    # 4 sequences x 4 targets; 4 x 2; 4 x 1; then 2 x 1, which fits: 4 passes for each half
    assert memory.passes == [(4, 4), (4, 2), (4, 1), *[(2, 1)] * (8 * points)]
    assert caplog.messages == [
        "out of memory: 2 targets per pass",
        "out of memory: 1 targets per pass",
        "out of memory: attributing 2 sequences at a time",
    ]


def test_what_did_not_fit_once_is_not_tried_again_with_the_next_group(monkeypatch):
    model = tiny_model("gpt_neox")
    memory = Memory(monkeypatch, room=2, error=ON_ACCELERATOR)
    attribute(model, prompt_ids=[[5, 6, 7, 8], [7, 8, 9, 1]], completion_ids=[[1, 2, 3, 4]] * 2, batch_size=1)
    assert memory.passes == [(1, 4), (1, 2), (1, 2), (1, 2), (1, 2)]


def test_a_single_target_that_does_not_fit_is_told(monkeypatch):
    Memory(monkeypatch, room=0, error=ON_CPU)
    with pytest.raises(UserError, match="18 tokens do not fit in memory even one target at a time"):
        attribute(tiny_model("gpt_neox"), prompt_ids=[[5] * 12], completion_ids=[[1, 2, 3, 4, 5, 6]])


def test_another_error_is_not_taken_for_full_memory(monkeypatch):
    memory = Memory(monkeypatch, room=0, error=RuntimeError("expected scalar type Half"))
    with pytest.raises(RuntimeError, match="scalar type"):
        attribute(tiny_model("gpt_neox"), prompt_ids=[[5]], completion_ids=[[1, 2]])
    assert len(memory.passes) == 1


def test_batches_are_reported_as_they_finish():
    seen = []
    model = tiny_model("gpt_neox")
    results = attribute(
        model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, batch_size=2, on_batch=lambda b: seen.append(dict(b))
    )
    assert [len(batch) for batch in seen] == [2, 2]
    assert {i: r for batch in seen for i, r in batch.items()} == dict(enumerate(results))


def test_what_cannot_be_attributed_is_a_null_row_with_its_status():
    model = tiny_model("gpt_neox")  # 64 positions
    results = attribute(model, prompt_ids=[[5], [5] * 60, [5, 6]], completion_ids=[[], [6] * 6, [7]])
    assert [r.status for r in results] == ["empty", "too_long", "ok"]
    assert results[0].scores is results[1].scores is results[0].token_prob is None


def test_a_zero_gradient_is_a_null_row():
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    (result,) = attribute(model, prompt_ids=[[5, 6]], completion_ids=[[7]])
    assert (result.status, result.scores) == ("zero_gradient", None)


@pytest.mark.parametrize("method", METHODS_BY_GRADIENT)
def test_a_gradient_that_is_not_finite_is_a_null_row(method):
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.get_input_embeddings().weight[6] = torch.nan
    given = {"prompt_ids": [[5, 6], [5, 5]], "completion_ids": [[7], [7]], "method": method, "num_path_steps": 3}
    bad, good = attribute(model, **given, batch_size=2)
    assert (bad.status, bad.scores, bad.token_prob) == ("non_finite", None, None)
    assert good.status == "ok"


def test_finite_logits_with_a_gradient_that_is_nan_are_a_null_row():
    model = tiny_model("gpt_neox")
    layer = model.gpt_neox.layers[0]
    layer.mlp.register_forward_hook(lambda m, args, out: out + (out - out).abs().pow(0.5))  # 0, its derivative inf * 0
    with torch.no_grad():
        assert model(torch.tensor([[5, 6]])).logits.isfinite().all()
    (result,) = attribute(model, prompt_ids=[[5, 6]], completion_ids=[[7]])
    assert (result.status, result.scores) == ("non_finite", None)


@pytest.mark.parametrize("method", METHODS_BY_GRADIENT)
@pytest.mark.parametrize("name", ["gpt_neox", "falcon_alibi", "opt"])
def test_a_prompt_of_one_token_has_the_whole_of_the_first_row(name, method):
    model = tiny_model(name, dtype=torch.float64)
    (ours,) = attribute(model, prompt_ids=[[5]], completion_ids=[[8, 7]], method=method, num_path_steps=3)
    assert ours.status == "ok" and ours.scores[0] == (1.0,)
    assert len(ours.scores[1]) == 2 and sum(ours.scores[1]) == pytest.approx(1.0)
    if method == "saliency":
        assert max_difference(ours.scores, loop(model, [5], [8, 7], saliency=True)) < 1e-10


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt_ids": [[]]}, "sequence 0: the prompt is empty"),
        ({"prompt_ids": [[5, 96]]}, "sequence 0: prompt token 1 is 96, outside the vocabulary 0..95"),
        ({"completion_ids": [[-1]]}, "sequence 0: completion token 0 is -1"),
        ({"completion_ids": [[-1]], "names": ["prompt 9f86"]}, "prompt 9f86: completion token 0 is -1"),
        ({"completion_ids": [[1], [2]]}, "1 prompts but 2 completions"),
        ({"method": "salience"}, "Did you mean 'saliency'"),
        ({"target": "logit"}, "target='logit' is not known"),
        ({"target": "contrastive"}, "contrast_ids go with target='contrastive'"),
        ({"target": "contrastive", "contrast_ids": [[1, 2]]}, "2 contrast tokens for 1 generated tokens"),
        ({"num_path_steps": 0}, "num_path_steps=0"),
        ({"baseline_id": 96}, "baseline_id=96 is outside"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_mistakes_are_told(change, message):
    model = tiny_model("gpt_neox")
    with pytest.raises(UserError, match=message):
        attribute(model, **{"prompt_ids": [[5]], "completion_ids": [[6]], **change})


def test_an_attention_without_a_usable_backward_is_refused():
    model = tiny_model("falcon_rotary")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="'flash_attention_2' of FalconForCausalLM cannot be differentiated"):
        attribute(model, prompt_ids=[[5]], completion_ids=[[6]])


def test_a_model_with_virtual_prompt_tokens_is_refused():
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(
        tiny_model("gpt_neox"), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM", num_layers=2)
    )
    with pytest.raises(UserError, match="prompt-learning adapters add virtual tokens"):
        attribute(model, prompt_ids=[[5]], completion_ids=[[6]])


def test_an_encoder_decoder_is_refused():
    import transformers as tf

    config = tf.T5Config(vocab_size=96, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(UserError, match="T5ForConditionalGeneration is an encoder-decoder"):
        attribute(tf.T5ForConditionalGeneration(config), prompt_ids=[[5]], completion_ids=[[6]])


def test_importing_the_package_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, detoxlens.attribution, detoxlens.params.attribution; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert next(iter(METHODS)) == "input_x_gradient"


def test_what_a_model_has_shown_in_one_call_is_not_found_out_again_in_the_next(monkeypatch):
    model, learnt, checked = tiny_model("gpt_neox"), Learnt(), []
    check = engine.middle_target_by_autograd
    monkeypatch.setattr(engine, "middle_target_by_autograd", lambda *args: checked.append(1) or check(*args))
    calls = [attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1], learnt=learnt) for _ in range(3)]
    assert len(checked) == 1 and learnt.tape_is_right is True
    assert calls[0] == calls[1] == calls[2] == attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1])
