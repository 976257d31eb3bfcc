"""The forecast: arithmetic by hand, shapes from what is here, what is not known said so, and what does not fit."""

import math
import shutil
from dataclasses import fields

import pytest
from rich.console import Console

from detoxlens.attribution.config import AttributionConfig
from detoxlens.config import load_params
from detoxlens.models.config import GenerationConfig
from detoxlens.models.lora import LoraConfig
from detoxlens.plan import command, forecast, measure
from detoxlens.plan.forecast import Counts, Shape
from detoxlens.plan.measure import Speeds, measure_speeds
from detoxlens.plan.shapes import shape_of
from detoxlens.project import change_params
from detoxlens.rl.config import PpoConfig
from detoxlens.sft.config import SftConfig
from tests.import_graph import ROOT
from tests.models.checkpoints import save_language_model

SPEEDS = Speeds(train_all=3.0, train_lora=2.0, forward=1.0, decode_step=10.0, decode_row=1.0, attribute=0.1)
COUNTS = Counts(
    num_rows=100, prompt_tokens=20, generated_tokens=10, num_attributed=4, num_examples=40, example_tokens=50,
    base_example_tokens=30,
)  # fmt: skip
SHAPE = Shape(
    num_parameters=3e9,
    num_adapter_parameters=1e6,
    hidden=2560,
    num_layers=32,
    vocab=50_000,
    dtype="bfloat16",
    bits=None,
)
PARAMS = load_params(ROOT / "params.yaml")
LORA = LoraConfig(r=2, alpha=4, dropout=0.0, target_modules=["query_key_value"])


def seconds(cost):
    return cost.hours * 3600


def section(name, cls, **changes):
    return PARAMS.section(name, cls).model_copy(update=changes)


def test_finetune_is_its_tokens_its_validations_and_its_steps():
    sft = section("sft", SftConfig, num_epochs=2, batch_size=8, eval_every=5)
    # 40 / 8 = 5 steps, two epochs: 10; 80 examples of 50 tokens trained, 2 validations of 4 examples read
    cost = forecast.finetune_cost(sft, COUNTS, SPEEDS, SHAPE, 7.0, 1)
    assert seconds(cost) == pytest.approx(7 + 80 * 50 * 2.0 + 2 * 4 * 50 * 1.0 + 10 * 0.02)
    twice = forecast.finetune_cost(sft, COUNTS, SPEEDS, SHAPE, 7.0, 2)
    assert (seconds(twice), twice.disk_gib) == (pytest.approx(2 * seconds(cost)), pytest.approx(8e6 / 2**30))
    assert cost.memory_gib > 6e9 / 2**30


def test_generate_and_score_count_batches_rows_and_queries():
    config = section("generation", GenerationConfig, max_new_tokens=16)
    # 100 rows in batches of 64: two, each 16 positions long; 10 tokens a row; 20 prompt tokens read
    cost = forecast.generate_cost(config, COUNTS, SPEEDS, SHAPE, 1.0, 3, 64)
    assert seconds(cost) == pytest.approx(3 * (1 + 2 * 16 * 10 + 100 * 10 * 1 + 100 * 20))
    scored = forecast.score_cost(["perspective", "openai_moderation"], COUNTS, SPEEDS, SHAPE, 0.0, 3)
    assert scored.num_api_calls == 3 * (100 + 4)
    assert seconds(scored) == pytest.approx(3 * (100 * 30 + 100 + 4))


def test_attribute_reads_its_own_texts_and_those_of_it():
    config = section("attribution", AttributionConfig)
    config = config.model_copy(update={"faithfulness": config.faithfulness.model_copy(update={"num_sequences": 0})})
    pairs = sum(20 + t for t in range(10))  # prefix of each generated token
    cost = forecast.attribute_cost(config, COUNTS, SPEEDS, SHAPE, 0.0, 3)
    assert seconds(cost) == pytest.approx((2 * 3 - 1) * 4 * pairs * 0.1)


def test_rl_decodes_reads_and_learns():
    ppo = section("ppo", PpoConfig, num_steps=4)
    ppo = ppo.model_copy(update={"validation": ppo.validation.model_copy(update={"every": 2, "num_prompts": 10})})
    config = section("generation", GenerationConfig, max_new_tokens=20)
    step = (20 * 10 + 64 * 10 * 1) + 3 * 64 * 30 + 2 * 64 * 30 * 2.0
    validation = (20 * 10 + 10 * 10 * 1) + 2 * 10 * 30
    cost = forecast.rl_cost(ppo, config, COUNTS, SPEEDS, SHAPE, 0.0, 1)
    assert seconds(cost) == pytest.approx(4 * step + 4 * validation)


def test_a_deep_model_is_extended_from_one_layer_and_two(monkeypatch, tmp_path):
    save_language_model(tmp_path / "m")
    config = shape_of(tmp_path, _params(tmp_path, source="m"), "tiny-neox", None)[0]
    config.num_hidden_layers = 32
    names = [field.name for field in fields(Speeds)]

    def at(config, layers, lora, **_):
        return Speeds(**{name: 5.0 + 2.0 * layers for name in names})

    monkeypatch.setattr(measure, "_at_depth", at)
    found = measure_speeds(config, LORA, device="cpu", dtype="float32")
    assert {getattr(found, name) for name in names} == {5.0 + 2.0 * 32}


def test_a_shallow_model_is_measured_as_it_is(monkeypatch, tmp_path):
    save_language_model(tmp_path / "m")
    monkeypatch.setattr(measure, "SECONDS_EACH", 0.0)
    config, where = shape_of(tmp_path, _params(tmp_path, source="m"), "tiny-neox", None)
    found = measure_speeds(config, LORA, device="cpu", dtype="float32")
    assert where == "m" and config.num_hidden_layers == 2
    assert all(getattr(found, f.name) >= 0 for f in fields(Speeds)) and found.train_all > found.forward > 0


def _params(folder, **changes):
    path = folder / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    change_params(path, {("models", "tiny-neox", key): value for key, value in changes.items()})
    return load_params(path)


def test_shapes_of_embedded_unknown_and_sized_models(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    params = _params(tmp_path)
    assert shape_of(tmp_path, params, "tiny-neox", None)[0].num_hidden_layers == 4
    assert shape_of(tmp_path, params, "redpajama-3b", None) is None
    config, where = shape_of(tmp_path, params, "redpajama-3b", 2.8e9)
    h, layers, v = config.hidden_size, config.num_hidden_layers, config.vocab_size
    assert 12 * h * h * layers + 2 * h * v == pytest.approx(2.8e9, rel=0.03) and where == "2.8e+09 parameters"


def test_what_is_unknown_or_does_not_fit_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measure_speeds", None, raising=False)
    monkeypatch.setattr("detoxlens.plan.measure.measure_speeds", lambda *a, **k: SPEEDS)
    monkeypatch.setattr(command, "_memory_gib", lambda device: (4.0, "this machine"))
    _params(tmp_path)
    path = tmp_path / "params.yaml"
    change_params(path, {("run", "models"): ["redpajama-3b", "falcon-7b"]})
    found = command.plan(tmp_path, path, parameters={"redpajama-3b": 2.8e9})
    assert [line for line in found.unknown if "falcon-7b: tiiuae/falcon-7b-instruct has no config" in line]
    assert any("generate of redpajama-3b needs about" in line for line in found.warnings)
    assert any("hours on this machine" in line for line in found.warnings)
    assert list(found.costs) == ["all models", "redpajama-3b"]
    assert all(math.isfinite(cost.hours) for costs in found.costs.values() for cost in costs)
    console = Console(record=True, width=100)
    command.show(found, console, device="cpu")
    text = console.export_text()
    assert "Unknown: falcon-7b" in text and "CPU-hours" in text and "No prompts are prepared" in text


def test_a_gpu_that_is_not_there_is_said(tmp_path):
    _params(tmp_path)
    change_params(tmp_path / "params.yaml", {("run", "device"): "cuda"})
    found = command.plan(tmp_path, tmp_path / "params.yaml", parameters={})
    assert found.costs == {} and "there is no GPU here" in found.unknown[0]
