"""Log-probabilities of responses: compared with a plain forward pass per response, token by token."""

from __future__ import annotations

import pytest
import torch

from detoxlens.models.truncation import process_logits
from detoxlens.models.value_head import ValueHead
from detoxlens.rl.likelihoods import (
    length_sorted,
    measure,
    pack_bits,
    response_logits,
    response_tokens,
    token_logprobs,
    unpack_bits,
)
from detoxlens.rl.rollout import Response, sample_responses

RESPONSES = [
    Response(prompt_ids=(5, 9, 7), token_ids=(20, 21, 22, 0), finish_reason="eos", text=""),
    Response(prompt_ids=(8,), token_ids=(30, 31), finish_reason="length", text=""),
    Response(prompt_ids=(40, 41, 42, 43, 44, 45), token_ids=(50, 50, 51), finish_reason="length", text=""),
]


@pytest.fixture
def policy(make_policy):
    """With an adapter that does something: B starts at zero."""
    policy = make_policy()
    generator = torch.Generator().manual_seed(1)
    for name, p in policy.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.3, generator=generator)
    return policy


def plain_logits(model, response) -> torch.Tensor:
    """(tokens, vocab), one sequence without padding."""
    ids = torch.tensor([[*response.prompt_ids, *response.token_ids]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0, len(response.prompt_ids) - 1 : -1].float()


def test_padded_batch_gives_the_logits_of_each_response_alone(policy):
    logits, values = response_logits(policy, RESPONSES, ValueHead(32))
    torch.testing.assert_close(logits, torch.cat([plain_logits(policy, r) for r in RESPONSES]), rtol=1e-4, atol=1e-5)
    assert logits.shape == (9, 258) and values.shape == (9,)


def test_the_value_loss_reaches_the_adapter_only_if_it_may(policy):
    head = ValueHead(32)
    torch.nn.init.ones_(head.linear.weight)
    adapter = next(p for n, p in policy.named_parameters() if "query_key_value.lora_B" in n)
    response_logits(policy, RESPONSES, head, value_gradient_to_backbone=False)[1].sum().backward()
    assert adapter.grad is None and head.linear.weight.grad is not None
    response_logits(policy, RESPONSES, head, value_gradient_to_backbone=True)[1].pow(2).sum().backward()
    assert adapter.grad.abs().sum() > 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_measured_columns_equal_a_slow_loop(policy, make_decoding, temperature):
    decoding = make_decoding(temperature=temperature, min_new_tokens=0)
    measured = measure(policy, ValueHead(32), RESPONSES, decoding, eos_token_id=0, micro_batch_size=2)
    assert measured.mask.tolist() == [[True] * 4, [True] * 2 + [False] * 2, [True] * 3 + [False]]
    assert measured.supports is None
    for row, response in enumerate(RESPONSES):
        logits = plain_logits(policy, response)
        with policy.disable_adapter():
            ref_logits = plain_logits(policy, response)
        for t, token in enumerate(response.token_ids):
            p, q = (logits[t] / temperature).softmax(0), (ref_logits[t] / temperature).softmax(0)
            expected = {
                "logprobs": p[token].log(),
                "policy_logprobs": p[token].log(),
                "ref_logprobs": q[token].log(),
                "kl": (p * (p / q).log()).sum(),
                "entropy": -(p * p.log()).sum(),
                "base_nll": -ref_logits[t].softmax(0)[token].log(),
                "values": torch.tensor(0.0),  # the head starts at zero
            }
            for name, value in expected.items():
                assert getattr(measured, name)[row, t].item() == pytest.approx(value.item(), abs=1e-4), name
        assert (measured.kl[row, len(response.token_ids) :] == 0).all()


def test_an_untrained_adapter_has_no_kl(make_policy, make_decoding):
    measured = measure(make_policy(), ValueHead(32), RESPONSES, make_decoding(), eos_token_id=0, micro_batch_size=8)
    assert measured.kl_nats_per_sequence == 0
    torch.testing.assert_close(measured.policy_logprobs, measured.ref_logprobs)


def test_log_probabilities_are_those_of_the_truncated_distribution_that_sampled(
    policy, tokenizer, make_decoding, prompts
):
    decoding = make_decoding(temperature=0.7, top_k=20, top_p=0.8, min_new_tokens=3, no_repeat_ngram_size=2)
    responses = sample_responses(policy, tokenizer, prompts, decoding, seed=0, names=("x",), batch_size=4)
    measured = measure(policy, ValueHead(32), responses, decoding, eos_token_id=0, micro_batch_size=5)
    for row, r in enumerate(responses):
        logits = plain_logits(policy, r)
        for t, token in enumerate(r.token_ids):
            prefix = torch.tensor([[*r.prompt_ids, *r.token_ids[:t]]])
            kept = process_logits(logits[t : t + 1], decoding, num_generated=t, eos_token_id=0, prefix_ids=prefix)
            assert measured.logprobs[row, t].item() == pytest.approx(kept.log_softmax(-1)[0, token].item(), abs=1e-4)
            support = unpack_bits(measured.supports[row], 258)[t]
            assert support.tolist() == (kept[0] > -torch.inf).tolist()
    assert (measured.logprobs >= measured.policy_logprobs - 1e-6)[measured.mask].all()  # renormalised over fewer tokens


def test_the_stored_support_gives_ratio_one_before_any_update_and_never_minus_infinity_after(
    policy, tokenizer, make_decoding, prompts
):
    decoding = make_decoding(top_k=3)
    responses = sample_responses(policy, tokenizer, prompts, decoding, seed=0, names=("x",), batch_size=4)
    measured = measure(policy, ValueHead(32), responses, decoding, eos_token_id=0, micro_batch_size=5)
    support, tokens = unpack_bits(torch.cat(measured.supports), 258), response_tokens(responses, torch.device("cpu"))

    def logprobs():
        logits = response_logits(policy, responses, None)[0].detach()
        return token_logprobs(logits, tokens, temperature=1.0, support=support)

    torch.testing.assert_close(logprobs(), measured.logprobs[measured.mask], rtol=1e-4, atol=1e-4)
    for p in policy.parameters():  # another policy altogether: other top 3
        p.data.mul_(-1.5)
    assert logprobs().isfinite().all()


def test_token_logprobs_over_a_support():  # softmax of [ln 3, ln 1, ln 4] over the first two: 3/4
    logits = torch.tensor([[3.0, 1.0, 4.0]]).log()
    support = torch.tensor([[True, True, False]])
    assert token_logprobs(logits, torch.tensor([0]), temperature=1, support=support).exp().item() == pytest.approx(0.75)
    # at temperature .5 the probabilities are squared: 9 / (9 + 1 + 16)
    assert token_logprobs(logits, torch.tensor([0]), temperature=0.5, support=None).exp().item() == pytest.approx(
        9 / 26
    )


@pytest.mark.parametrize("num_columns", [8, 11, 1])
def test_packed_bits_come_back(num_columns):
    bits = torch.rand(5, num_columns, generator=torch.Generator().manual_seed(0)) > 0.5
    packed = pack_bits(bits)
    assert packed.dtype == torch.uint8 and packed.shape == (5, -(-num_columns // 8))
    assert unpack_bits(packed, num_columns).equal(bits)


def test_micro_batches_hold_similar_lengths():  # total lengths 7, 3, 9
    assert length_sorted(RESPONSES, [0, 1, 2], 2) == [[1, 0], [2]]
