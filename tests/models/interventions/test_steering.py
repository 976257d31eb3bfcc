"""Steering against the same vector in the bias of the layer's last product: both go into the residual stream."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from detoxlens.attribution.api import attribute
from detoxlens.attribution.engine import Learnt
from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import examine
from detoxlens.models.generation import sample
from detoxlens.models.interventions.materials import Reply
from detoxlens.models.interventions.steering import mean_difference, mean_hidden_states
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.steering import SteeringConfig
from tests.attribution.tiny import COMPLETIONS, PROMPTS, VOCAB, loop, max_difference
from tests.models.interventions.networks import load, logits, make, save_model

CIVIL = [Reply(ids=(5, 9, 44, 2), num_own=2), Reply(ids=(7, 8, 3), num_own=1)]
HOSTILE = [Reply(ids=(5, 9, 30, 31, 32), num_own=3), Reply(ids=(7, 8, 41), num_own=1)]
LAST_PRODUCT = {
    "gpt_neox": "gpt_neox.layers.0.mlp.dense_4h_to_h",
    "falcon_rotary": "transformer.h.0.mlp.dense_4h_to_h",
    "gpt2": "transformer.h.0.mlp.c_proj",
    "llama": "model.layers.0.mlp.down_proj",
    "opt": "model.decoder.layers.0.fc2",
}
DECODING = GenerationConfig(
    max_new_tokens=12,
    min_new_tokens=1,
    temperature=1.0,
    top_k=20,
    top_p=0.9,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=4,
    stop="next_turn",
    backend="torch",
)


def config(**values):
    return SteeringConfig(**({"layer": 0, "strength": 1.5, "max_replies": 8} | values))


def steered_and_reference(root, name, **values):
    """The steered network, and the base model with strength * direction in a bias of the layer."""
    ref = save_model(root, name)
    steered = load(root, make(root, ref, "steering", config(**values), replies=(CIVIL, HOSTILE)))
    reference = load(root, ref)
    added = config(**values).strength * load_file(root / "adapters/steering/steering.safetensors")["direction"]
    product = reference.get_submodule(LAST_PRODUCT[name])
    product.bias = torch.nn.Parameter(added if product.bias is None else product.bias + added)
    return steered, reference


def drawn(network):
    return sample(
        network, PROMPTS, config=DECODING, seeds=range(4), eos_token_id=VOCAB - 1, pad_token_id=VOCAB - 1, batch_size=4
    )


def test_the_difference_of_means():  # ((1, 2) + (3, 4)) / 2 - (1, 2) = (1, 1)
    civil, hostile = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0]])
    assert mean_difference(civil, hostile).tolist() == [1.0, 1.0]


def test_a_replys_state_is_the_mean_over_its_own_tokens_whoever_stands_beside_it(tmp_path):
    model = load(tmp_path, save_model(tmp_path))
    found = mean_hidden_states(model, model.gpt_neox.layers[0], CIVIL + HOSTILE)
    for row, reply in zip(found, CIVIL + HOSTILE, strict=True):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([reply.ids]), output_hidden_states=True).hidden_states[1][0]
        torch.testing.assert_close(row, states[-reply.num_own :].double().mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAST_PRODUCT)
def test_the_vector_is_added_at_every_position_in_every_architecture(tmp_path, name):
    steered, reference = steered_and_reference(tmp_path, name)
    torch.testing.assert_close(logits(steered), logits(reference), rtol=1e-4, atol=1e-4)
    assert (logits(steered) - logits(load(tmp_path, save_model(tmp_path, name)))).abs().max() > 0.1
    able = examine(steered, pad_token_id=VOCAB - 1)
    assert able.cached and able.rows_leave and able.left_padded and able.head_selects


@pytest.mark.parametrize("name", ["gpt_neox", "falcon_rotary"])
@pytest.mark.parametrize("layer", [0, 1])
def test_attribution_goes_through_the_steered_network_on_the_fast_path(tmp_path, name, layer):
    steered, reference = steered_and_reference(tmp_path, name, layer=layer)
    if layer == 1:  # the loop below sees the hook itself: plain autograd through it
        reference = steered
    learnt = Learnt()
    found = attribute(steered, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, learnt=learnt)
    assert learnt.tape_is_right
    for prompt, completion, row in zip(PROMPTS, COMPLETIONS, found, strict=True):
        assert max_difference(row.scores, loop(reference, prompt, completion)) < 1e-4
    base = load(tmp_path, save_model(tmp_path, name))
    assert max_difference(found[0].scores, loop(base, PROMPTS[0], COMPLETIONS[0])) > 1e-3


def test_strength_0_gives_the_base_models_tokens_and_logits(tmp_path):
    ref = save_model(tmp_path)
    base, still = (
        load(tmp_path, ref),
        load(tmp_path, make(tmp_path, ref, "steering", config(strength=0.0), replies=(CIVIL, HOSTILE))),
    )
    assert torch.equal(logits(still), logits(base))
    assert drawn(still) == drawn(base)
    moved = load(tmp_path, make(tmp_path, ref, "steering", config(strength=4.0), replies=(CIVIL, HOSTILE)))
    assert drawn(moved) != drawn(base)


def test_the_same_replies_give_the_same_bytes(tmp_path):
    ref = save_model(tmp_path)
    files = []
    for _ in range(2):
        make(tmp_path, ref, "steering", config(), replies=(CIVIL, HOSTILE))
        files.append([f.read_bytes() for f in sorted((tmp_path / "adapters/steering").iterdir())])
    assert files[0] == files[1]


def test_a_layer_that_the_model_does_not_have_is_named_with_those_that_it_has(tmp_path):
    ref = save_model(tmp_path)
    with pytest.raises(UserError, match=r"steering\.layer=2: GPTNeoXForCausalLM has 2 layers, 0 to 1\. Choose one"):
        make(tmp_path, ref, "steering", config(layer=2), replies=(CIVIL, HOSTILE))
