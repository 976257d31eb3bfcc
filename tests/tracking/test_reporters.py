"""Training curves for others than MLflow; what they lack never stops a stage."""

import sys
import types

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.load import Params, load_params
from detoxlens.params.tracking import TrackingConfig
from detoxlens.tracking.reporters import report_history
from tests.root import ROOT

ROWS = [{"step": 0, "sft/loss": 2.0}, {"step": 5, "sft/loss": 1.5, "sft/validation_loss": None}]


def test_tensorboard_shows_each_number_at_its_step_and_a_second_training_replaces_the_first(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        report_history(["mlflow", "tensorboard"], tmp_path, "tiny-neox/ft", ROWS)
    found = accumulator.EventAccumulator(str(tmp_path / ".detoxlens/tensorboard/tiny-neox/ft"))
    found.Reload()
    assert found.Tags()["scalars"] == ["sft/loss"]
    assert [(event.step, event.value) for event in found.Scalars("sft/loss")] == [(0, 2.0), (5, 1.5)]


def test_wandb_gets_one_run_per_adapter(tmp_path, monkeypatch):
    logged = []

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            logged.append("closed")

        def log(self, numbers, *, step):
            logged.append((step, numbers))

    stand_in = types.ModuleType("wandb")
    stand_in.init = lambda **keys: logged.append((keys["project"], keys["name"], keys["id"])) or Run()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    report_history(["mlflow", "wandb"], tmp_path, "tiny-neox/ft", ROWS)
    assert logged == [
        ("detoxlens", "tiny-neox/ft", "tiny-neox-ft"),
        (0, {"sft/loss": 2.0}),
        (5, {"sft/loss": 1.5}),
        "closed",
    ]


def test_a_package_that_is_missing_or_a_service_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # import raises ImportError
    report_history(["tensorboard"], tmp_path, "tiny-neox/ft", ROWS)
    assert "`pip install tensorboard` brings it" in caplog.text
    stand_in = types.ModuleType("wandb")

    def refuse(**_):
        raise ConnectionError("no route")

    stand_in.init = refuse
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    report_history(["wandb"], tmp_path, "tiny-neox/ft", ROWS)
    assert "no route" in caplog.text and "no result is affected" in caplog.text


@pytest.mark.parametrize(
    ("value", "said"),
    [(["wandb"], "mlflow must be in it"), (["mlflow", "mlflow"], "at most once"), (["comet"], "wandb")],
)
def test_mlflow_stays_the_record(value, said):
    raw = load_params(ROOT / "params.yaml").raw | {"tracking": {"report_to": value}}
    with pytest.raises(UserError, match=said):
        Params(raw).section("tracking", TrackingConfig)
