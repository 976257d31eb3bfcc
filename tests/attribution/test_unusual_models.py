"""`attribute` on models off the usual path: cut elsewhere, taped with care, or left to torch's own graph."""

from __future__ import annotations

import pytest
import torch

from detoxlens.attribution import attribute, gradients
from detoxlens.common.errors import UserError
from tests.architectures import random_model
from tests.attribution.tiny import COMPLETIONS, PROMPTS, loop, max_difference, tiny_model, with_lora


def test_a_model_whose_layers_are_not_recognised_is_cut_at_the_head_instead(monkeypatch):
    model = tiny_model("gpt_neox", dtype=torch.float64)
    (usual,) = attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1])
    monkeypatch.setattr(gradients, "decoder_layers", lambda model: None)
    (at_head,) = attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1])
    assert max_difference(usual.scores, at_head.scores) < 1e-10


def test_a_last_layer_that_mixes_positions_by_other_means_is_noticed():
    """The cut assumes that only attention mixes positions; a layer that also sums over them must not use it."""
    model = tiny_model("gpt_neox", dtype=torch.float64)
    layer = model.gpt_neox.layers[-1]
    layer.mlp.register_forward_hook(lambda m, args, out: out + 0.5 * out.cumsum(1))
    (ours,) = attribute(model, prompt_ids=PROMPTS[:1], completion_ids=COMPLETIONS[:1])
    assert max_difference(ours.scores, loop(model, PROMPTS[0], COMPLETIONS[0])) < 1e-7


def test_a_model_that_changes_an_activation_in_place_goes_through_autograd():
    """The tape cannot follow it (`test_tape.py`); torch's own graph can."""
    model = tiny_model("gpt_neox", dtype=torch.float64)

    def change(module, args, out):
        double = out * 2
        shifted = double + 1
        return double.add_(shifted)

    model.gpt_neox.layers[0].mlp.register_forward_hook(change)
    found = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    for a, prompt, completion in zip(found, PROMPTS, COMPLETIONS, strict=True):
        assert max_difference(a.scores, loop(model, prompt, completion)) < 1e-7


class Hidden(torch.autograd.Function):
    """An operation that the tape cannot see: its forward leaves torch."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() * 3.0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3.0


def add_first_layers_input(model):
    """A path from the embeddings around every layer."""
    seen = []
    model.gpt_neox.layers[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model.gpt_neox.layers[-1].register_forward_hook(lambda m, args, out: out + 0.7 * seen[-1])


def change_the_embeddings(model):
    model.gpt_neox.layers[0].register_forward_pre_hook(lambda m, args: (args[0].add_(0.3),))


def hide_an_operation(model):
    model.gpt_neox.layers[0].mlp.register_forward_hook(lambda m, args, out: Hidden.apply(out))


def hide_everything_below_the_head(model):
    """As fused kernels for the norms do."""
    model.gpt_neox.final_layer_norm.register_forward_hook(lambda m, args, out: Hidden.apply(out))


def hide_the_first_layers_input(model):
    model.gpt_neox.layers[0].register_forward_pre_hook(lambda m, args: (Hidden.apply(args[0]), *args[1:]))


def mix_positions_behind_the_last_attention(model):
    model.gpt_neox.layers[-1].attention.dense.register_forward_pre_hook(lambda m, args: (args[0].cumsum(1),))


def mix_positions_in_the_last_mlp(model):
    model.gpt_neox.layers[-1].mlp.register_forward_hook(lambda m, args, out: out + 0.5 * out.cumsum(1))


@pytest.mark.parametrize("prompts", [PROMPTS, [(7,)] * len(PROMPTS)], ids=["prompts", "one-token"])
@pytest.mark.parametrize(
    "change",
    [
        add_first_layers_input,
        change_the_embeddings,
        hide_an_operation,
        hide_everything_below_the_head,
        hide_the_first_layers_input,
        mix_positions_behind_the_last_attention,
        mix_positions_in_the_last_mlp,
    ],
)
def test_a_model_off_the_usual_path_is_right_all_the_same(change, prompts):
    model = tiny_model("gpt_neox", dtype=torch.float64)
    change(model)
    found = attribute(model, prompt_ids=prompts, completion_ids=COMPLETIONS)
    for a, prompt, completion in zip(found, prompts, COMPLETIONS, strict=True):
        assert max_difference(a.scores, loop(model, prompt, completion)) < 1e-7


@pytest.mark.parametrize(
    "change, told",
    [
        (hide_an_operation, "this model hides operations from the fast path"),
        (hide_everything_below_the_head, "hidden operations lie between the embeddings and the logits"),
    ],
)
def test_what_the_tape_cannot_see_is_noticed_and_said_once(caplog, change, told):
    model = tiny_model("gpt_neox", dtype=torch.float64)
    change(model)
    attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS, batch_size=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"attribution: {told}; going by torch's own graph, one target at a time, slower"
    ]


def test_an_adapter_on_the_embeddings_is_part_of_the_model():
    model = with_lora(tiny_model("llama", dtype=torch.float64), target_modules=("embed_tokens", "q_proj"))
    found = attribute(model, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    for a, prompt, completion in zip(found, PROMPTS, COMPLETIONS, strict=True):
        assert max_difference(a.scores, loop(model, prompt, completion)) < 1e-7


def test_a_model_that_reads_what_comes_after_is_refused():
    with pytest.raises(UserError, match="BertLMHeadModel reads the tokens after a position"):
        attribute(random_model("bert"), prompt_ids=[[5, 9]], completion_ids=[[3, 4, 8]])
