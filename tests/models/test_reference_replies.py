"""Bits of given replies and KL to base against a slow loop, and what a network costs against hand counts."""

import math

import pytest
import torch

from detoxlens.models.inference_cost import forward_flops, weights_bytes
from detoxlens.models.loading import load_model
from detoxlens.models.reference_replies import reply_bits
from detoxlens.params.models import WeightsConfig
from tests.pipeline.stages.study import make_study

PROMPTS = [(5, 9, 7), (4, 8), (6, 6, 6, 6, 6)]
REPLIES = [(3, 2), (9, 9, 9, 1), (7,)]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    from detoxlens.common.artifacts import read_model_ref

    layout = make_study(tmp_path_factory.mktemp("study"))
    refs = [read_model_ref(layout.adapter("m", variant)) for variant in ("it", "ft")]
    return [load_model(layout.root, ref, WeightsConfig(), device="cpu") for ref in refs]


@torch.no_grad()
def by_hand(variant, base, prompt, base_prompt, reply):
    """A token at a time, the whole prefix for each, in nats; then in bits."""
    nll = kl = 0.0
    for t, token in enumerate(reply):
        ours, theirs = (
            model(torch.tensor([[*ids, *reply[:t]]])).logits[0, -1].double().log_softmax(-1)
            for model, ids in ((variant, prompt), (base, base_prompt))
        )
        nll -= ours[token].item()
        kl += sum((math.exp(p) * (p - q)) for p, q in zip(ours.tolist(), theirs.tolist(), strict=True))
    return nll / math.log(2), kl / math.log(2)


@pytest.mark.parametrize("selects", [(False, False), (True, True)])
def test_bits_and_kl_are_those_of_a_slow_loop_in_any_batch(networks, selects):
    it, ft = networks
    longer = [(1, 2, *p) for p in PROMPTS]  # the variant reads more than base
    expected = [by_hand(ft, it, *row) for row in zip(longer, PROMPTS, REPLIES, strict=True)]
    for batch_size in (1, 3):
        found = reply_bits(ft, it, longer, PROMPTS, REPLIES, batch_size=batch_size, heads_select=selects)
        for row, reference in zip(found, expected, strict=True):
            assert row == pytest.approx(reference, rel=1e-4)
    assert all(kl > 1e-4 for _, kl in expected)


def test_base_has_no_distance_from_itself(networks):
    found = reply_bits(networks[0], networks[0], PROMPTS, PROMPTS, REPLIES, batch_size=2)
    assert [kl for _, kl in found] == [0.0, 0.0, 0.0] and all(nll > 0 for nll, _ in found)


def test_a_tied_weight_is_counted_once_and_an_adapter_adds_its_own(networks):
    layer = torch.nn.Linear(3, 5, bias=False)  # 15 floats of 4 bytes
    both = torch.nn.ModuleList([layer, torch.nn.Linear(5, 3, bias=False)])
    both[1].weight = layer.weight
    assert weights_bytes(layer) == weights_bytes(both) == 60
    it, ft = networks
    lora = sum(p.numel() for name, p in ft.named_parameters() if "lora_" in name)
    assert weights_bytes(ft) - weights_bytes(it) == 4 * lora > 0


def test_operations_are_two_per_multiply_add_of_the_matrix_products():
    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7)

        def forward(self, input_ids, use_cache):
            return self.head(self.embedding(input_ids))

    assert forward_flops(Head(), [1, 2, 3]) == 2 * 3 * 4 * 7  # three tokens, 4 x 7


def test_an_adapter_that_is_not_merged_takes_more_operations(networks):
    it, ft = (forward_flops(network, [1, 2, 3, 4]) for network in networks)
    assert it < ft < 2 * it
