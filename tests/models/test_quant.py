"""8-bit and 4-bit weights: what is asked of transformers, and what is told where it cannot be had."""

import importlib.util

import pytest
import torch

from detoxlens.attribution.quantized import dequantized, is_quantized
from detoxlens.common.errors import UserError
from detoxlens.models.loading import load_model
from detoxlens.models.quant import make_differentiable, quantization_config
from detoxlens.params.models import WeightsConfig
from detoxlens.pipeline.stages import base
from tests.models.checkpoints import save_language_model
from tests.pipeline.stages.study import params_of


def test_where_it_does_not_work_it_is_refused_before_anything_is_loaded(tmp_path):
    ref = save_language_model(tmp_path / "m")
    with pytest.raises(UserError, match=r"m: quantization='4bit' does not work on mps: set run\.device to cuda or cpu"):
        load_model(tmp_path, ref, WeightsConfig(quantization="4bit"), device="mps")
    params = params_of()
    params.raw["models"]["m"]["quantization"] = "8bit"
    params.raw["run"]["device"] = "mps"
    with pytest.raises(UserError, match=r"models\.m: quantization='8bit' does not work on mps"):
        base.run(tmp_path, params, model="m")


def test_a_model_whose_layers_stayed_as_they_were_is_refused():
    with pytest.raises(UserError, match=r"m: quantization='4bit' left every layer of Linear as it was"):
        make_differentiable(torch.nn.Linear(2, 2), "4bit", name="m")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
@pytest.mark.parametrize("quantization, at_most", [("8bit", 0.01), ("4bit", 0.12)])
def test_every_layer_of_the_papers_architectures_is_converted(tmp_path, architecture, quantization, at_most):
    """Bounds: normal weights in 255 even steps and in NF4's 16, root mean square."""
    pytest.importorskip("bitsandbytes")
    ref = save_language_model(tmp_path / "m", architecture, hidden_size=128)  # on a CPU, 0.50 rounds small ones badly
    whole, short = (
        load_model(tmp_path, ref, WeightsConfig(quantization=q), device="cpu") for q in (None, quantization)
    )
    short(torch.arange(20)[None])  # 8-bit layers unpack their state on first use
    layers = {name: m for name, m in short.named_modules() if is_quantized(m)}
    assert len(layers) == 8  # of two blocks; the head stays
    for name, layer in layers.items():
        weight = whole.get_submodule(name).weight
        assert 0 < (dequantized(layer, torch.float32) - weight).norm() / weight.norm() < at_most


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package bitsandbytes: pip install -e '\.\[quant\]'"):
        quantization_config("8bit", device="cuda", dtype="bfloat16", name="models.m")


def test_what_is_asked_of_transformers(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    eight = quantization_config("8bit", device="cuda", dtype="bfloat16", name="m")
    four = quantization_config("4bit", device="cuda", dtype="bfloat16", name="m")
    assert eight.load_in_8bit and not eight.load_in_4bit
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == (True, "nf4", torch.bfloat16)
