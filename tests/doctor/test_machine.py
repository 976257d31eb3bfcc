"""Versions, disk, device; and what models need, against the models themselves."""

import json

import pytest

from detoxlens.config import ModelConfig, load_params
from detoxlens.doctor import machine, models
from detoxlens.doctor.machine import Machine
from detoxlens.models.tiny import TinyConfig, build
from tests.doctor.commands import assert_exists
from tests.import_graph import ROOT

LAPTOP = Machine(num_cores=2, memory_gib=8.0, gpu=None, gpu_memory_gib=None, torch_has_cuda=False)
SERVER = Machine(num_cores=16, memory_gib=128.0, gpu="NVIDIA A", gpu_memory_gib=80.0, torch_has_cuda=True)


def test_the_installed_versions_are_those_of_the_constraints(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("torch==2.13.0\nmlflow==3.17.2\nboto3==1.0\n")
    have = {"torch": "2.13.0+cpu", "mlflow": "3.17.2"}
    check = machine.check_versions(file, have.get)
    assert check.status == "ok" and "2 packages" in check.detail
    check = machine.check_versions(file, (have | {"mlflow": "3.16.0"}).get)
    assert check.status == "broken" and check.detail == "mlflow 3.16.0 instead of 3.17.2"
    assert_exists(check.mend)
    assert machine.check_versions(tmp_path / "gone.txt").status == "warning"


@pytest.mark.parametrize(("free", "status"), [(100.0, "ok"), (2.0, "warning"), (0.1, "broken")])
def test_little_room_is_told(tmp_path, free, status):
    check = machine.check_disk(tmp_path, free_gib=free)
    assert check.status == status
    if check.mend:
        assert_exists(check.mend)


@pytest.mark.parametrize(
    ("here", "device", "threads", "status"),
    [
        (LAPTOP, "cpu", 2, "ok"),
        (LAPTOP, "cpu", 4, "warning"),
        (LAPTOP, "cuda", 2, "broken"),
        (SERVER, "cuda:0", 8, "ok"),
        (Machine(num_cores=2, memory_gib=8, gpu="A", gpu_memory_gib=8, torch_has_cuda=False), "cuda", 2, "broken"),
        (Machine(num_cores=2, memory_gib=8, gpu="A", gpu_memory_gib=8, torch_has_cuda=False), "cpu", 2, "warning"),
    ],
)
def test_device_and_threads_must_be_there(here, device, threads, status):
    check = machine.check_machine(here, device=device, num_threads=threads)
    assert check.status == status
    if check.mend:
        assert_exists(check.mend)


def test_this_machine_is_found():
    here = machine.this_machine()
    assert here.num_cores >= 1 and (here.memory_gib is None or here.memory_gib > 0.5)


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
def test_weights_are_counted_from_the_config_and_from_the_files_headers(tmp_path, architecture):
    raw = load_params(ROOT / "params.yaml").raw["tiny"] | {"vocab_size": 400, "hidden_size": 16, "num_layers": 2}
    network = build(architecture, TinyConfig(**raw), vocab_size=400)
    assert models.from_config(network.config.to_dict()) == network.num_parameters()
    network.save_pretrained(tmp_path / "models/m/base")
    spec = load_params(ROOT / "params.yaml").model("tiny-neox")
    assert models.count_parameters(tmp_path, "m", spec) == network.num_parameters()


def test_the_papers_models_have_the_sizes_they_are_known_for():
    neox = {"model_type": "gpt_neox", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32}
    assert models.from_config(neox | {"vocab_size": 50432}) == 2_775_864_320
    falcon = {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}
    assert models.from_config(falcon | {"vocab_size": 65024}) == 6_921_720_704
    assert models.from_config({"model_type": "other", "hidden_size": 8}) is None


def check(num_parameters, *, is_run=True, dtype="bfloat16", memory=8.0):
    spec = load_params(ROOT / "params.yaml").model("redpajama-3b")
    spec = ModelConfig(**(spec.model_dump() | {"dtype": dtype}))
    return models.check_model("m", spec, num_parameters, memory_gib=memory, where="memory", is_run=is_run)


def test_a_model_is_measured_in_its_own_dtype():
    assert check(None).detail.startswith("need unknown")
    assert check(3 * 10**9).status == "ok"  # 5.6 GiB x 1.25 = 7.0
    big = check(3 * 10**9, dtype="float32")  # 11.2 GiB
    assert (big.status, big.mend) == ("broken", "dvc exp run -S models.m.dtype=bfloat16")
    assert_exists(big.mend)
    assert check(3 * 10**9, dtype="float32", is_run=False).status == "ok"


def test_sharded_weights_count_only_when_all_are_here(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert models._in_safetensors(tmp_path) is None
