"""8-bit and 4-bit weights: what is asked of transformers, and what is told where it cannot be had."""

import importlib.util

import pytest
import torch

from detoxlens.errors import UserError
from detoxlens.models.loading import load_model
from detoxlens.models.quant import quantization_config
from detoxlens.stages import base
from tests.models.checkpoints import save_language_model
from tests.stages.study import params_of


def test_on_cpu_it_is_refused_before_anything_is_loaded(tmp_path):
    ref = save_language_model(tmp_path / "m")
    with pytest.raises(UserError, match=r"m: quantization='4bit' needs an accelerator: set run\.device to cuda"):
        load_model(tmp_path, ref, device="cpu", dtype="float32", quantization="4bit")
    params = params_of()
    params.raw["models"]["m"]["quantization"] = "8bit"
    with pytest.raises(UserError, match=r"models\.m: quantization='8bit' needs an accelerator"):
        base.run(tmp_path, params, model="m")


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
