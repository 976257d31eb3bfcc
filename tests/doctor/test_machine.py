"""Versions, disk, device; and what models need, against the models themselves."""

import dataclasses
import json

import pytest

from detoxlens.common.artifacts import Layout
from detoxlens.doctor import machine, models
from detoxlens.doctor.machine import Gpu, Machine
from detoxlens.models.footprint import GIB, Footprint, Weights, weights_of
from detoxlens.models.tiny import build
from detoxlens.params.load import load_params
from detoxlens.params.models import ModelConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.plan.command import footprints_of, model_costs
from detoxlens.plan.counts import count, read_data
from detoxlens.plan.measure import Speeds
from tests.doctor.commands import assert_exists
from tests.root import ROOT

LAPTOP = Machine(num_cores=2, memory_gib=8.0, gpus=(), torch_has_cuda=False)
SMALL = Gpu(name="NVIDIA S", memory_gib=8.0)
SERVER = Machine(num_cores=16, memory_gib=128.0, gpus=(Gpu(name="NVIDIA A", memory_gib=80.0),), torch_has_cuda=True)
PAIR = Machine(num_cores=16, memory_gib=128.0, gpus=(SMALL, SMALL), torch_has_cuda=True)
CPU_TORCH = Machine(num_cores=2, memory_gib=8, gpus=(SMALL,), torch_has_cuda=False)


def test_the_installed_versions_are_those_of_the_constraints(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("torch==2.13.0\nmlflow==3.17.2\nboto3==1.0\n")
    have = {"torch": "2.13.0+cpu", "mlflow": "3.17.2"}
    check = machine.check_versions(file, have.get)
    assert check.status == "ok" and "2 packages" in check.detail
    check = machine.check_versions(file, (have | {"mlflow": "3.16.0"}).get)
    assert check.status == "broken" and check.detail == "mlflow 3.16.0 instead of 3.17.2"
    assert_exists(check.remedy)
    check = machine.check_versions(tmp_path / "gone.txt")  # a study made by `detoxlens init` has none
    assert (check.status, check.remedy) == ("ok", "") and "no constraints.txt" in check.detail


@pytest.mark.parametrize(("free", "status"), [(100.0, "ok"), (2.0, "warning"), (0.1, "broken")])
def test_little_room_is_told(tmp_path, free, status):
    check = machine.check_disk(tmp_path, free_gib=free)
    assert check.status == status
    if check.remedy:
        assert_exists(check.remedy)


@pytest.mark.parametrize(
    ("here", "device", "threads", "status"),
    [
        (LAPTOP, "cpu", 2, "ok"),
        (LAPTOP, "cpu", 4, "warning"),
        (LAPTOP, "cuda", 2, "broken"),
        (SERVER, "cuda:0", 8, "ok"),
        (CPU_TORCH, "cuda", 2, "broken"),
        (CPU_TORCH, "cpu", 2, "warning"),
        (PAIR, "cuda:1", 2, "ok"),
        (PAIR, "cuda:2", 2, "broken"),
    ],
)
def test_device_and_threads_must_be_there(here, device, threads, status):
    check = machine.check_machine(here, device=device, num_threads=threads)
    assert check.status == status
    if check.remedy:
        assert_exists(check.remedy)


def test_this_machine_is_found():
    here = machine.this_machine()
    assert here.num_cores >= 1 and (here.memory_gib is None or here.memory_gib > 0.5)


def test_every_gpu_that_the_driver_lists_is_found(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA X, 24576'\necho 'NVIDIA Y, 16384'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine._gpus() == (Gpu(name="NVIDIA X", memory_gib=24.0), Gpu(name="NVIDIA Y", memory_gib=16.0))


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
def test_weights_are_counted_from_the_files_headers(tmp_path, architecture):
    raw = load_params(ROOT / "params.yaml").raw["tiny"] | {"vocab_size": 400, "hidden_size": 16, "num_layers": 2}
    network = build(architecture, TinyConfig(**raw), vocab_size=400)
    network.save_pretrained(tmp_path / "models/m/base")
    found = models.count_weights(tmp_path, "m", load_params(ROOT / "params.yaml").model("tiny-neox"))
    assert found == weights_of(network.config.to_dict()) and found.num_parameters == network.num_parameters()


FALCON = Weights(num_parameters=6_921_720_704, num_embedding=295_469_056)


def check(weights, *, is_run=True, here=LAPTOP, device="cpu", **changes):
    spec = load_params(ROOT / "params.yaml").model("falcon-7b").model_dump() | {"dtype": "bfloat16"}
    model = ModelConfig(**(spec | changes))
    footprint = weights and Footprint(
        weights=weights,
        num_adapter_parameters=0,
        hidden=1,
        num_layers=1,
        vocab=1,
        dtype=model.dtype,
        quantization=model.quantization,
    )
    return models.check_model("m", model, footprint, a_quarter_more, machine=here, device=device, is_run=is_run)


def a_quarter_more(footprint):
    """In place of the forecast: weights and a quarter."""
    return "attribute", 1.25 * footprint.weight_bytes


def test_a_model_fits_by_the_forecast_of_plan(tmp_path):
    params = load_params(ROOT / "params.yaml")
    network = build("gpt_neox", params.section("tiny", TinyConfig), vocab_size=1024)
    network.save_pretrained(tmp_path / "models/tiny-neox/base")
    footprint = models.footprint_of(tmp_path, params, "tiny-neox")
    by_doctor = models.peak_of(tmp_path, params, "tiny-neox")(footprint)
    data = read_data(Layout(tmp_path))
    counts = {v: count(data, params, "tiny-neox", v, earlier_tokens=None) for v in params.run.variants}
    footprints = footprints_of(network.config, params, "tiny-neox")
    speeds = Speeds(**{field.name: 1.0 for field in dataclasses.fields(Speeds)})
    by_plan = max(model_costs(params, "tiny-neox", counts, speeds, footprints, 0.0), key=lambda cost: cost.memory_gib)
    assert by_doctor == (by_plan.stage, pytest.approx(by_plan.memory_gib * GIB))


def test_a_model_is_measured_in_its_own_dtype():
    three = Weights(num_parameters=3 * 10**9, num_embedding=10**8)
    assert check(None).detail.startswith("need unknown")
    assert check(three).status == "ok"  # 5.6 GiB x 1.25 = 7.0
    big = check(three, dtype="float32")  # 11.2 GiB
    assert (big.status, big.remedy) == ("broken", "dvc exp run -S models.m.dtype=bfloat16")
    assert_exists(big.remedy)
    assert check(three, dtype="float32", is_run=False).status == "ok"


def test_falcon_in_4_bits_fits_a_small_card_and_is_offered_there(monkeypatch):
    monkeypatch.setattr(models, "installed_version", lambda name: "1.0")
    small = Machine(num_cores=2, memory_gib=8, gpus=(SMALL,), torch_has_cuda=True)
    # 295 M x 2 bytes + 6,626 M x .516 bytes = 3.7 GiB, x 1.25 = 4.7
    fits = check(FALCON, here=small, device="cuda", quantization="4bit")
    assert (
        fits.status == "ok"
        and "3.7 GiB in bfloat16 and 4bit; most in attribute, 4.7 GiB; fits into the GPU" in fits.detail
    )
    plain = check(FALCON, here=small, device="cuda")  # 12.9 GiB
    assert (plain.status, plain.remedy) == ("broken", "dvc exp run -S models.m.quantization=4bit")
    assert check(FALCON, here=small, device="cuda", quantization="8bit").status == "broken"  # 6.7 x 1.25 = 8.4


def test_cards_count_together_where_the_model_is_spread(monkeypatch):
    three = Machine(num_cores=2, memory_gib=8, gpus=(SMALL,) * 3, torch_has_cuda=True)
    spread = check(FALCON, here=three, device="cuda", device_map="auto")  # 12.9 x 1.25 = 16.1 of 24
    assert spread.status == "ok" and "fits into all 3 GPUs together" in spread.detail
    one = check(FALCON, here=three, device="cuda:1")
    assert (one.status, one.remedy) == ("broken", "dvc exp run -S models.m.device_map=auto")
    two = check(FALCON, here=PAIR, device="cuda", device_map="auto")  # 16.1 of 16.0
    assert (two.status, two.remedy) == ("broken", "dvc exp run -S models.m.quantization=4bit")


def test_quantization_needs_a_card_and_a_package(monkeypatch):
    on_cpu = check(FALCON, quantization="4bit")
    assert (on_cpu.status, on_cpu.remedy) == ("broken", "dvc exp run -S models.m.quantization=null")
    assert check(FALCON, quantization="4bit", is_run=False).status == "ok"
    monkeypatch.setattr(models, "installed_version", lambda name: None)
    without = check(FALCON, here=SERVER, device="cuda", quantization="4bit")
    assert without.status == "broken" and "[dev,quant]" in without.remedy


def test_sharded_weights_count_only_when_all_are_here(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert models._in_safetensors(tmp_path) is None
