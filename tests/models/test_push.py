"""An adapter on the hub: what is there, and what is not."""

import json

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.artifacts import write_json, write_model_ref
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from tests.models.fake_hub import fake_hub
from tests.root import ROOT

METRICS = {
    "toxicity": {
        "p50": {
            "rate_gt_50": 0.05,
            "ci95": [0.03, 0.08],
            "num_scored": 400,
            "delta_vs_it": {"value": -0.57, "ci95": [-0.62, -0.52], "num_prompts": 400},
        }
    },
    "fluency": {"measures": {"perplexity": {"value": 2.0, "ci95": [1.9, 2.1]}}},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    folder = tmp_path / "adapters/tiny-neox/ft"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "models/tiny-neox/base", "revision": "ab"})
    (folder / "README.md").write_text("# tiny-neox / ft\n\nLoRA adapter trained by hand.\n", encoding="utf-8")
    (folder / "history.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    (folder / "completions.parquet").write_bytes(b"hostile")
    write_model_ref(folder, ModelRef(base="owner/base", revision="c0ffee", adapter="adapters/tiny-neox/ft"))
    write_json(tmp_path / "reports/metrics.json", {"tiny-neox": {"ft": METRICS}})
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return tmp_path


def _push(project, *more):
    arguments = ["--root", str(project), "push-adapter", "-m", "tiny-neox", "-v", "ft", "--repo", "me/detox", *more]
    return CliRunner().invoke(app, arguments)


def test_weights_config_curves_and_card_arrive_and_nothing_else(project, monkeypatch):
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        done = _push(project, "--license", "apache-2.0")
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.output.strip() == f"Pushed to {hub.endpoint}/me/detox" and "hf_secret" not in done.output
    assert hub.repositories == {"me/detox": True}  # private unless said otherwise
    files = hub.files["me/detox"]
    assert sorted(files) == ["README.md", "adapter_config.json", "adapter_model.safetensors", "history.jsonl"]
    assert files["adapter_model.safetensors"] == b"weights"
    config = json.loads(files["adapter_config.json"])
    assert config == {"base_model_name_or_path": "owner/base", "revision": "c0ffee"}


def test_the_card_has_front_matter_numbers_with_intervals_use_and_limits(project):
    done = _push(project, "--dry-run", "--license", "apache-2.0", "--dataset", "owner/dialogues")
    assert done.exit_code == 0, done.exception
    card = ModelCard(done.output)
    assert card.data.base_model == "owner/base" and card.data.library_name == "peft"
    assert card.data.license == "apache-2.0" and card.data.datasets == ["owner/dialogues"]
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"toxicity_rate": 0.05, "toxicity_delta": -0.57, "perplexity": 2.0}
    assert "| share toxic (> .5) | 0.050 | [0.030, 0.080] | 400 |" in card.text
    assert "LoRA adapter trained by hand." in card.text
    assert "## Intended use" in card.text and "## Limits" in card.text and "profanity_check" in card.text


def test_without_an_evaluation_the_card_has_no_numbers(project):
    (project / "reports/metrics.json").unlink()
    done = _push(project, "--dry-run")
    assert "This adapter was not evaluated." in done.output and "model-index" not in done.output


def test_an_adapter_of_a_local_base_model_is_not_pushed_without_its_hub_id(project):
    (project / "models/tiny-neox/base").mkdir(parents=True)
    folder = project / "adapters/tiny-neox/ft"
    write_model_ref(folder, ModelRef(base="models/tiny-neox/base", revision="ab", adapter="adapters/tiny-neox/ft"))
    assert "nobody else could load the adapter" in str(_push(project).exception)
    done = _push(project, "--dry-run", "--base", "owner/elsewhere")
    assert ModelCard(done.output).data.base_model == "owner/elsewhere"


@pytest.mark.parametrize(("status", "said"), [(403, "HF_TOKEN needs write access"), (500, "could not be written to")])
def test_a_refusal_is_one_paragraph(project, monkeypatch, status, said):
    monkeypatch.setattr("huggingface_hub.utils._http._DEFAULT_RETRY_ON_STATUS_CODES", (), raising=False)
    with fake_hub(status) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        done = _push(project)
    assert isinstance(done.exception, UserError) and said in str(done.exception)
    assert "hf_secret" not in str(done.exception)


def test_what_was_not_trained_is_not_pushed(project):
    (project / "adapters/tiny-neox/ft/README.md").unlink()
    assert "holds no adapter" in str(_push(project).exception)
