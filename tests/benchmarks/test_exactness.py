"""benchmarks.exactness on a trained-looking adapter of toy size: every method, agreement, and the report."""

import json

import pytest
import torch

from benchmarks import exactness as bench
from detoxlens.common.artifacts import Layout, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion
from detoxlens.params.load import Params
from tests.benchmarks.test_attribution import ATTRIBUTION
from tests.pipeline.stages.study import make_study, params_of

pytestmark = pytest.mark.filterwarnings("ignore")  # inseq's and captum's own


@pytest.fixture
def project(tmp_path, monkeypatch):
    make_study(tmp_path)
    params = Params(params_of().raw | {"attribution": ATTRIBUTION})
    monkeypatch.setattr(bench, "load_params", lambda _: params)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def write_completions(root) -> None:
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
            completion_ids=(20, 21),
            finish_reason="length",
            seed=0,
        )
        for i in range(2)
    ]
    write_rows(Layout(root).completions("m", "ft"), rows, Completion)


def test_ours_equals_inseq_in_float64_and_the_errors_in_float32_are_written(project, capsys):
    write_completions(project)
    bench.bench_exactness(project, project / "params.yaml", num_texts=1, num_threads=1)
    written = json.loads((project / "benchmarks/results/exactness.json").read_text(encoding="utf-8"))["cases"]
    assert [(c["model"], c["variant"], c["method"]) for c in written] == [("m", "ft", m) for m in bench.METHODS]
    for case in written:
        assert case["num_texts"] == 1 and case["num_scores"] == 3 + 4
        assert case["float64_difference"] <= 1e-8
        assert 0 < case["float32_error_ours"] < 1e-5 and 0 < case["float32_error_inseq"] < 1e-5
    said = capsys.readouterr().out
    assert "m/ft" in said and "integrated_gradients" in said and "Wrote benchmarks/results/exactness.json" in said


def test_without_a_trained_variant_it_says_what_to_do(project):
    with pytest.raises(UserError, match=r"No variant of run\.models has an adapter and completions; run `dvc repro`"):
        bench.bench_exactness(project, project / "params.yaml", num_texts=1, num_threads=1)


def test_a_wrong_score_shows():  # .3 against .25
    assert bench.max_abs_difference([[[0.7, 0.3]]], [[[0.75, 0.25]]]) == pytest.approx(0.05)
