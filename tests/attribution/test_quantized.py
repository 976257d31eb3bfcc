"""Attribution of models with 8- or 4-bit weights: by a stand-in for such a layer, and by bitsandbytes itself (slow)."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from detoxlens.attribution import attribute, quantized, rules
from detoxlens.models.loading import load_model
from detoxlens.params.models import WeightsConfig
from tests.attribution.tiny import COMPLETIONS, PROMPTS, loop, max_difference, tiny_model, with_lora
from tests.models.checkpoints import save_language_model


class Params4bit(nn.Parameter):
    """Named as bitsandbytes names it."""


class Packed(nn.Linear):
    """Computes outside torch: no graph, nothing that a tape could see."""

    def forward(self, x):
        y = x.detach().numpy() @ self.weight.detach().numpy().T + self.bias.detach().numpy()
        return torch.from_numpy(y)


def packed(model):
    """`model`, every linear layer of its first block packed."""
    block = model.gpt_neox.layers[0]
    for name, layer in list(block.named_modules()):
        if type(layer) is nn.Linear:
            substitute = Packed(layer.in_features, layer.out_features)
            substitute.weight, substitute.bias = Params4bit(layer.weight.detach(), requires_grad=False), layer.bias
            block.set_submodule(name, substitute)
    return model


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "lora"])
def test_the_gradient_is_that_of_the_dequantized_weights(monkeypatch, caplog, adapted):
    for module in (quantized, rules):
        monkeypatch.setattr(module, "dequantized", lambda layer, dtype: layer.weight.detach().to(dtype))
    plain, ours = tiny_model("gpt_neox", dtype=torch.float64), tiny_model("gpt_neox", dtype=torch.float64)
    if adapted:
        plain, ours = with_lora(plain), with_lora(ours)
        for name, layer in list(ours.named_modules()):
            if name.endswith("base_layer") and type(layer) is nn.Linear:
                layer.__class__ = Packed
                layer.weight = Params4bit(layer.weight.detach(), requires_grad=False)
    else:
        ours = packed(ours)
    assert any(quantized.is_quantized(m) for m in ours.modules())
    found = attribute(ours, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    assert "slower" not in caplog.text  # the tape saw the layers
    for a, prompt, completion in zip(found, PROMPTS, COMPLETIONS, strict=True):
        assert max_difference(a.scores, loop(plain, prompt, completion)) < 1e-7


def test_layers_are_left_as_they_were():
    model = packed(tiny_model("gpt_neox"))
    layers = [m for m in model.modules() if quantized.is_quantized(m)]
    layers[0].forward = layers[0].forward  # as accelerate does
    with quantized.differentiable_layers(model):
        assert all(isinstance(layer.forward, functools.partial) for layer in layers)
    assert ["forward" in layer.__dict__ for layer in layers] == [True, False, False, False]
    assert not isinstance(layers[0].forward, functools.partial)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
def test_ours_equals_bitsandbytes_own_gradient(tmp_path, caplog, architecture, quantization):
    pytest.importorskip("bitsandbytes")
    ref = save_language_model(tmp_path / "m", architecture)
    model = load_model(tmp_path, ref, WeightsConfig(quantization=quantization), device="cpu")
    prompts, completions = [[5, 9, 44, 2, 17], [7, 8]], [[8, 70, 3], [9, 9, 4, 1]]
    found = attribute(model, prompt_ids=prompts, completion_ids=completions)
    assert "slower" not in caplog.text
    for a, prompt, completion in zip(found, prompts, completions, strict=True):
        assert max_difference(a.scores, loop(model, prompt, completion)) < 1e-5
