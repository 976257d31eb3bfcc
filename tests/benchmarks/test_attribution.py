"""benchmarks.attribution on models of toy size: both sides run, agree, and are reported."""

import json

import pytest
import torch

from benchmarks import attribution as bench
from benchmarks.cases import demo_case, falcon, neox, random_case
from benchmarks.hardware import hardware, in_words
from detoxlens.common.artifacts import Layout, write_rows
from detoxlens.common.records import Completion
from tests.pipeline.stages.study import make_study, params_of
from tests.root import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")  # inseq's and captum's own
ATTRIBUTION = {
    "method": "input_x_gradient",
    "target": "probability",
    "filters": ["p50"],
    "sample": "random",
    "sample_toxic_above": 0.66,
    "max_sequences": 5,
    "samples_per_prompt": 1,
    "unit": "token",
    "mask_template": False,
    "num_path_steps": 5,
    "batch_size": "auto",
    "memory_mib": None,
    "precision_check": 0,
    "faithfulness": {"num_sequences": 0, "steps_per_sequence": 1, "fractions": [0.5], "num_random": 1},
    "agreement": {"methods": [], "num_sequences": 0},
}


def toy(name="toy", model=None):
    return random_case(name, model or neox(16, 2, 2, 32, 40), num_prompt=5, num_generated=4, target_speedup=6)


@pytest.mark.parametrize("model", [lambda: neox(16, 2, 2, 32, 40), lambda: falcon(16, 2, 2, 40, dtype=torch.float32)])
def test_both_sides_attribute_the_same_text_and_agree(model):
    case = toy(model=model())
    own_pad = case.model.config.pad_token_id
    found = bench.measure(case, 2)
    assert found.max_abs_difference < 1e-5
    assert 0 < found.error_ours < 1e-5 and 0 < found.error_inseq < 1e-5
    assert found.num_prompt_tokens == 5 and found.num_generated_tokens == 4
    low, high = found.speedup_range
    assert 0 < low <= found.speedup <= high
    assert found.ours_over_floor == pytest.approx(found.ours_seconds / found.floor.matmul_seconds)
    assert found.peak_share is None and found.peak_memory_gib is None
    assert case.model.config.pad_token_id == own_pad


def test_a_wrong_score_shows_in_the_difference():  # .3 against .25
    assert bench.max_abs_difference([[[0.7, 0.3]]], [[[0.75, 0.25]]]) == pytest.approx(0.05)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        bench.max_abs_difference([[[0.7, 0.3]]], [[[1.0]]])


def test_the_demo_case_takes_the_completions_that_the_stage_attributes(tmp_path):
    make_study(tmp_path)
    params = params_of()
    params.raw["attribution"] = ATTRIBUTION
    params.raw["models"]["tiny-neox"] = params.raw["models"]["m"]
    assert demo_case(tmp_path, params) is None
    for kind in ("models", "adapters"):
        (tmp_path / kind / "m").rename(tmp_path / kind / "tiny-neox")
    reference = tmp_path / "adapters/tiny-neox/it/model_ref.json"
    reference.write_text(reference.read_text().replace("models/m/", "models/tiny-neox/"))
    rows = [
        Completion(
            prompt_id=f"{i:016x}",
            sample_index=0,
            split="test",
            filters=("p50",),
            prompt="Zorgons",
            prompt_ids=(10, 11, 12 + i),
            prompt_token_is_template=(False,) * 3,
            completion="are",
            completion_ids=(20, 21) if i else (),
            finish_reason="length",
            seed=0,
        )
        for i in range(5)
    ]
    write_rows(Layout(tmp_path).completions("tiny-neox", "it"), rows, Completion)
    case = demo_case(tmp_path, params, num_texts=2)
    assert case.texts == [((10, 11, 13), (20, 21)), ((10, 11, 15), (20, 21))]  # every second of the four with text


def test_the_command_writes_the_table_and_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "neox_256", toy)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    threads = torch.get_num_threads()
    try:
        bench.bench_attribution(tmp_path, tmp_path / "params.yaml", num_repetitions=1, num_threads=1)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "tiny-neox: not measured" in said and "no GPU was found" in said
    written = json.loads((tmp_path / "benchmarks/results/attribution.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in written["cases"]] == ["toy"]
    assert written["hardware"]["num_threads"] == 1


def test_the_hardware_is_named():
    found = hardware()
    assert found["num_cores"] >= 1 and found["cpu"]
    assert f"torch {found['packages']['torch']}" in in_words(found)
