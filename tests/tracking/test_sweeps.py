"""Trials in MLflow: each once, whatever its study is called elsewhere."""

import pytest

from detoxlens.tracking import TrialRun, write_sweep_runs
from tests.tracking.stores import NOISE, runs_of

pytestmark = pytest.mark.filterwarnings(NOISE)


def trial(number, r):
    return TrialRun(
        number=number,
        params={"lora.r": r},
        metrics={"toxicity/val/mean": 0.1},
        history=[],
        tags={},
        status="FINISHED",
        start_ms=1_000,
        end_ms=2_000,
        adapters={},
    )


def test_trials_of_another_study_of_the_same_name_are_kept_apart_and_the_same_ones_written_once(store):
    for study, r in (("one", 4), ("other", 8), ("one", 4)):
        write_sweep_runs(store, name="ppo-m", study=study, params={}, trials=[trial(0, r)])
    runs = runs_of(store, **{"kind": "trial"})
    assert sorted(run.data.params["lora.r"] for run in runs) == ["4", "8"]
    assert len(runs_of(store, **{"kind": "sweep"})) == 2
