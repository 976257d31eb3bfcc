"""The full-scale benchmark: on a tiny shape every stage runs as it would at full size; without a GPU it says so."""

import pytest
import torch

from detoxlens.artifacts import Layout, read_rows
from detoxlens.bench.cases import falcon, neox
from detoxlens.bench.scale import PER_VARIANT, bench_scale, cut_down, run_at, table_of
from detoxlens.config import load_params
from detoxlens.models.lora import LoraConfig
from detoxlens.records import Attribution, Completion
from detoxlens.run_stage import check_params
from tests.import_graph import ROOT


def test_without_a_gpu_it_says_so_and_records_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench_scale(tmp_path, ROOT / "params.yaml")
    assert "no GPU was found" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_cut_down_params_are_valid_and_keep_the_authors_settings():
    small = cut_down(load_params(ROOT / "params.yaml"), ROOT, ["redpajama-3b"], device="cpu", num_prompts=64)
    check_params(small)
    assert small.section("lora", LoraConfig, model="redpajama-3b").r == 64
    assert small.raw["splits"]["p50"]["max_val"] + small.raw["splits"]["p50"]["max_test"] == 64


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # third-party noise is another test's business
def test_every_stage_runs_at_a_tiny_shape_on_cpu(tmp_path):
    shapes = {
        "redpajama-3b": lambda: neox(32, 2, 4, 64, 1024, dtype=torch.float32),
        "falcon-7b": lambda: falcon(32, 2, 4, 1024, dtype=torch.float32),
    }
    params = load_params(ROOT / "params.yaml")
    params.raw["reward_model"]["tiny"]["num_steps"] = 5
    params.raw["ppo"]["rollout_batch_size"] = 16
    for model in shapes:
        params.raw["models"][model]["dtype"] = "float32"  # Falcon's bfloat16 backward takes minutes on a CPU
        params.raw["models"][model]["overrides"]["generation"]["max_new_tokens"] = 8
        params.raw["models"][model]["overrides"]["sft"]["examples"] = "dialogues"
    costs = run_at(tmp_path, ROOT, params, shapes, device="cpu", num_prompts=16)
    ran = {(c.model, c.variant, c.stage) for c in costs}
    assert {(m, v, s) for m in shapes for v, stages in PER_VARIANT.items() for s in stages} <= ran
    assert all(c.seconds > 0 and c.peak_gib > 0 for c in costs)
    assert all((c.tokens_per_second is not None) == (c.stage == "generate") for c in costs)
    for model in shapes:
        assert len(read_rows(Layout(tmp_path).completions(model, "rl"), Completion)) == 16
        assert read_rows(Layout(tmp_path).attributions(model, "ft"), Attribution)
    assert table_of(costs).row_count == len(costs)
