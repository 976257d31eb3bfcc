"""The plan: speeds measured, shapes from what is here, what is not known said so, and what does not fit."""

import math
import shutil
from dataclasses import fields, replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.errors import UserError
from detoxlens.params.edit import change_params
from detoxlens.params.load import load_params
from detoxlens.params.lora import LoraConfig
from detoxlens.plan import command, measure
from detoxlens.plan.command import footprints_of
from detoxlens.plan.configs import config_of
from detoxlens.plan.measure import Speeds, measure_speeds
from detoxlens.plan.terminal import show
from tests.models.checkpoints import save_language_model
from tests.plan.test_forecast import SPEEDS
from tests.root import ROOT

LORA = LoraConfig(r=2, alpha=4, dropout=0.0, target_modules=["query_key_value"])


def test_a_deep_model_is_extended_from_few_layers_and_some_more(monkeypatch, tmp_path):
    save_language_model(tmp_path / "m")
    config = config_of(tmp_path, _params(tmp_path, source="m"), "tiny-neox", None)[0]
    config.num_hidden_layers = 32
    names = [field.name for field in fields(Speeds)]

    def at(config, layers, lora, **_):
        return Speeds(**{name: 5.0 + 2.0 * layers for name in names})

    monkeypatch.setattr(measure, "_at_depth", at)
    found = measure_speeds(config, LORA, device="cpu", dtype="float32")
    assert {getattr(found, name) for name in names} == {5.0 + 2.0 * 32}
    monkeypatch.setattr(measure, "_at_depth", lambda *_, **__: Speeds(**dict.fromkeys(names, 6.0)))
    found = measure_speeds(config, LORA, device="cpu", dtype="float32")
    layer = sum(p.numel() for p in measure.build(config, 2, device="meta", dtype="float32").parameters())
    layer -= sum(p.numel() for p in measure.build(config, 1, device="meta", dtype="float32").parameters())
    share = layer / (2 * layer + config.vocab_size * config.hidden_size)
    assert [getattr(found, name) for name in names] == pytest.approx([6.0 * (1 + 30 * share / 2)] * len(names))


def test_a_shallow_model_is_measured_as_it_is(monkeypatch, tmp_path):
    save_language_model(tmp_path / "m")
    monkeypatch.setattr(measure, "SECONDS_EACH", 0.0)
    config, where = config_of(tmp_path, _params(tmp_path, source="m"), "tiny-neox", None)
    found = measure_speeds(config, LORA, device="cpu", dtype="float32")
    assert where == "m" and config.num_hidden_layers == 2
    assert all(getattr(found, f.name) >= 0 for f in fields(Speeds)) and found.train_all > 0 < found.forward


def _params(folder, **changes):
    path = folder / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    change_params(path, {("models", "tiny-neox", key): value for key, value in changes.items()})
    return load_params(path)


def test_shapes_of_embedded_unknown_and_sized_models(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    params = _params(tmp_path)
    assert config_of(tmp_path, params, "tiny-neox", None)[0].num_hidden_layers == 4
    assert config_of(tmp_path, params, "redpajama-3b", None) is None
    config, where = config_of(tmp_path, params, "redpajama-3b", 2.8e9)
    h, layers, v = config.hidden_size, config.num_hidden_layers, config.vocab_size
    assert 12 * h * h * layers + 2 * h * v == pytest.approx(2.8e9, rel=0.03) and where == "2.8e+09 parameters"


def test_what_is_unknown_or_does_not_fit_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measure_speeds", None, raising=False)
    monkeypatch.setattr("detoxlens.plan.measure.measure_speeds", lambda *a, **k: SPEEDS)
    monkeypatch.setattr(command, "_memory_gib", lambda device, spread: (4.0, "this machine has"))
    _params(tmp_path)
    path = tmp_path / "params.yaml"
    change_params(path, {("run", "models"): ["redpajama-3b", "falcon-7b"]})
    found = command.plan(tmp_path, path, parameters={"redpajama-3b": 2.8e9})
    assert [line for line in found.unknown if "falcon-7b: tiiuae/falcon-7b-instruct has no config" in line]
    assert any("generate of redpajama-3b/rl needs about" in line for line in found.warnings)
    assert any("hours on this machine" in line for line in found.warnings)
    assert list(found.costs) == ["all models", "redpajama-3b"]
    assert all(math.isfinite(cost.seconds) for costs in found.costs.values() for cost in costs)
    console = Console(record=True, width=100)
    show(found, console, device="cpu")
    text = console.export_text()
    assert "Unknown: falcon-7b" in text and "CPU-hours" in text and "No prompts are prepared" in text


def test_faster_products_are_said_with_the_keys_that_turn_them_on(tmp_path):
    params = _params(tmp_path, dtype="float32")  # SPEEDS: 2.0 against 1.0 seconds a token
    assert command._autocast_note(params, "tiny-neox", SPEEDS) == (
        "tiny-neox: with products in bfloat16 a training pass was 2.0 times as fast here; "
        "models.tiny-neox.overrides.sft.autocast, models.tiny-neox.overrides.ppo.autocast: bfloat16 turns that on, and "
        "changes numbers a little."
    )
    slower = replace(SPEEDS, train_lora_autocast=1.9)
    assert command._autocast_note(params, "tiny-neox", slower) is None
    change_params(tmp_path / "params.yaml", {("sft", "autocast"): "bfloat16", ("ppo", "autocast"): "bfloat16"})
    assert command._autocast_note(load_params(tmp_path / "params.yaml"), "tiny-neox", SPEEDS) is None


def test_a_gpu_that_is_not_there_is_said(tmp_path):
    _params(tmp_path)
    change_params(tmp_path / "params.yaml", {("run", "device"): "cuda"})
    found = command.plan(tmp_path, tmp_path / "params.yaml", parameters={})
    assert found.costs == {} and "there is no GPU here" in found.unknown[0]


def test_an_adapters_size_is_that_of_its_own_variant(tmp_path):
    save_language_model(tmp_path / "m")
    params = _params(tmp_path, source="m", quantization="4bit", dtype="bfloat16")
    params.raw["variants"]["rl"]["overrides"] = {"lora": {"r": 4, "target_modules": ["query_key_value"]}}
    params.raw["lora"] |= {"r": 2, "target_modules": ["query_key_value"]}
    config, _ = config_of(tmp_path, params, "tiny-neox", None)
    h, layers = config.hidden_size, config.num_hidden_layers
    found = footprints_of(config, params, "tiny-neox")
    assert found["ft"].num_adapter_parameters == layers * 2 * (h + 3 * h)
    assert found["rl"].num_adapter_parameters == 2 * found["ft"].num_adapter_parameters
    weights = found["it"].weights
    outside, linear = weights.num_embedding, weights.num_parameters - weights.num_embedding
    assert outside == 2 * config.vocab_size * h
    assert found["it"].weight_bytes == 2 * outside + 0.516 * linear


def test_a_model_spread_over_all_cards_has_their_memory_together(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**30 * (24 if device in (0, "cuda") else 16)))
    assert command._memory_gib("cuda", spread=False) == (24.0, "the GPU has")
    assert command._memory_gib("cuda", spread=True) == (40.0, "the 2 GPUs have together")


def test_few_bits_are_measured_in_float32_too(monkeypatch, tmp_path):
    save_language_model(tmp_path / "m")
    monkeypatch.setattr(measure, "SECONDS_EACH", 0.0)
    config, _ = config_of(tmp_path, _params(tmp_path, source="m"), "tiny-neox", None)
    few = measure_speeds(config, LORA, device="cpu", dtype="bfloat16")
    assert few.attribute_float32 > 0 and few.attribute_float32 != few.attribute
    full = measure_speeds(config, LORA, device="cpu", dtype="float32")
    assert full.attribute_float32 == full.attribute


def test_a_number_for_a_model_that_is_not_run_is_told(tmp_path):
    _params(tmp_path)
    with pytest.raises(UserError, match=r"run\.models has no 'tiny-nox'\. Did you mean 'tiny-neox'"):
        command.plan(tmp_path, tmp_path / "params.yaml", parameters={"tiny-nox": 1e6})


@pytest.mark.parametrize("pair", ["foo", "m=", "m=many", "m=-3", "m=nan", "=1e9"])
def test_a_number_of_parameters_must_be_one(tmp_path, pair):
    done = CliRunner().invoke(app, ["--root", str(tmp_path), "plan", "--parameters", pair])
    assert done.exit_code == 1 and "is not of the form <model>=<number of parameters>" in str(done.exception)
