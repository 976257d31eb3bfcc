"""One execution of one stage: recorded once, whatever is killed, refused or unreachable."""

import json
import signal
import subprocess
import sys

import pytest

from detoxlens import tracking
from detoxlens.common.errors import UserError
from detoxlens.tracking import send_pending, track_stage
from detoxlens.tracking.store import open_client
from tests.tracking.stores import KEY, NEOX_FT, NOISE, runs_of

pytestmark = pytest.mark.filterwarnings(NOISE)


def test_the_base_model_is_called_base_and_a_former_record_without_variant_too(store):
    with track_stage(store, stage="base", model="tiny-neox", variant="it", key=KEY, params={}):
        pass
    (path,) = store.pending.glob("*.json")
    former = json.loads(path.read_text()) | {"variant": None, "id": "f" * 32}
    (store.pending / "9-former.json").write_text(json.dumps(former))
    with track_stage(store, stage="score", model="tiny-neox", variant="it", key=KEY, params={}):
        pass
    assert send_pending(store) == 3
    names = sorted(r.info.run_name for r in runs_of(store))
    assert names == ["base/tiny-neox", "base/tiny-neox", "score/tiny-neox/base", "tiny-neox/base"]
    assert {r.data.tags["detoxlens.variant"] for r in runs_of(store)} == {"it"}


def test_a_short_stage_waits_and_is_then_filed_under_its_variants_run(store):
    with track_stage(store, stage="prepare", params={"data": {"seed": 0}}):
        pass
    with track_stage(store, stage="finetune", **NEOX_FT, params={"sft": {"learning_rate": 2e-3}}) as run:
        run.log_history(
            [{"step": 1, "sft/loss_nats": 2.5}, {"step": 2, "sft/loss_nats": 1.5, "sft/val_loss_nats": None}]
        )
        run.log_metrics({"stage/num_rows": 7})
    with track_stage(store, stage="generate", **NEOX_FT, params={}):
        pass
    assert runs_of(store) == []
    assert send_pending(store) == 3
    assert send_pending(store) == 0
    by_stage = {r.data.tags["detoxlens.stage"]: r for r in runs_of(store, kind="stage")}  # all within a millisecond
    prepare, finetune, generate = (by_stage[name] for name in ("prepare", "finetune", "generate"))
    (parent,) = runs_of(store, kind="variant")
    assert parent.info.run_name == "tiny-neox/ft" and parent.info.status == "SCHEDULED"
    assert finetune.data.tags["mlflow.parentRunId"] == generate.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "mlflow.parentRunId" not in prepare.data.tags
    assert {r.info.status for r in (prepare, finetune, generate)} == {"FINISHED"}
    assert finetune.info.run_name == "finetune/tiny-neox/ft"
    assert finetune.data.params == {"sft.learning_rate": "0.002"}
    assert finetune.data.metrics["stage/num_rows"] == 7 and finetune.data.metrics["stage/wall_seconds"] >= 0
    client, _ = open_client(store)
    history = client.get_metric_history(finetune.info.run_id, "sft/loss_nats")
    assert [(m.step, m.value) for m in history] == [(1, 2.5), (2, 1.5)]
    assert list(store.pending.iterdir()) == [store.pending / "send.lock"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("password=hunter2"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(130), "KILLED")],
)
def test_an_exception_passes_and_sets_the_status_without_its_text(store, error, status):
    with pytest.raises(type(error)), track_stage(store, stage="rl", **NEOX_FT, params={}, send_after_seconds=0) as run:
        run.log_metrics({"ppo/reward": 0.5}, step=3)
        raise error
    assert send_pending(store) == (1 if status == "KILLED" else 0)
    (run,) = runs_of(store, kind="stage")
    assert run.info.status == status and run.data.metrics["ppo/reward"] == 0.5
    assert run.data.tags["detoxlens.error"] == type(error).__name__
    assert "hunter2" not in str(run.to_dictionary())


def test_nothing_from_the_environment_is_logged(store, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("LOGNAME", "secretname")
    with track_stage(store, stage="rl", **NEOX_FT, params={"a": 1}, send_after_seconds=0):
        pass
    assert all("secret" not in str(run.to_dictionary()) for run in runs_of(store))


HANG = """
import sys, time
from pathlib import Path
from detoxlens.tracking import resolve_store, track_stage
with track_stage(resolve_store(Path(sys.argv[1]), {}), stage="rl", params={}):
    print("in", flush=True)
    time.sleep(100)
"""


def test_a_running_stage_is_left_alone_and_a_killed_one_is_marked(root, store):
    worker = subprocess.Popen([sys.executable, "-c", HANG, str(root)], stdout=subprocess.PIPE)
    try:
        worker.stdout.readline()
        assert send_pending(store) == 0
        assert len(list(store.pending.glob("*.json"))) == 1
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    assert send_pending(store) == 1
    assert [r.info.status for r in runs_of(store, stage="rl")] == ["KILLED"]


def test_a_record_that_was_sent_halfway_is_completed_not_doubled(store, monkeypatch):
    with track_stage(store, stage="rl", **NEOX_FT, params={"a": 1}) as run:
        run.log_metrics({"ppo/reward": 0.5}, step=3)
    with monkeypatch.context() as patch:
        patch.setattr(tracking.stages, "log_metrics", lambda *_: (_ for _ in ()).throw(OSError("cut")))
        with pytest.raises(UserError, match="cut"):
            send_pending(store)
    assert send_pending(store) == 1
    (run,) = runs_of(store, kind="stage")
    assert run.info.status == "FINISHED" and run.data.metrics["ppo/reward"] == 0.5
    assert len(runs_of(store, kind="variant")) == 1


def test_a_record_that_mlflow_refuses_waits_and_holds_up_no_other(store, caplog):
    with track_stage(store, stage="rl", **NEOX_FT, params={}):
        pass
    (refused,) = store.pending.glob("*.json")
    record = json.loads(refused.read_text())
    refused.write_text(json.dumps(record | {"params": {"": "a param without a name"}}))
    (store.pending / "0-damaged.json").write_text('{"id"')
    (store.pending / "1-newer.json").write_text(json.dumps(record | {"a_field_to_come": 1}))
    with track_stage(store, stage="score", **NEOX_FT, params={}):
        pass
    assert send_pending(store) == 1
    assert [r.data.tags["detoxlens.stage"] for r in runs_of(store) if r.info.status == "FINISHED"] == ["score"]
    for words in (f"MLflow refuses the record {refused}", "0-damaged.json holds no record", "by another version"):
        assert words in caplog.text
    assert {p.name for p in store.pending.glob("*.json")} == {refused.name, "1-newer.json"}
    assert [p.name for p in store.pending.glob("*.unreadable")] == ["0-damaged.unreadable"]
    refused.write_text(json.dumps(record))
    assert send_pending(store) == 1


def test_records_that_former_versions_set_aside_or_kept_elsewhere_are_sent(store):
    for stage in ("rl", "score"):
        with track_stage(store, stage=stage, **NEOX_FT, params={}):
            pass
    first, second = store.pending.glob("*.json")
    store.former_pending.mkdir()
    first.rename(first.with_suffix(".rejected"))
    second.rename(store.former_pending / second.name)
    assert send_pending(store) == 2


def test_records_wait_while_the_experiment_is_in_the_bin_and_arrive_after_restore(store, caplog):
    client, experiment = open_client(store)
    client.delete_experiment(experiment)
    for number in range(3):
        with track_stage(store, stage="prepare", params={"try": number}, send_after_seconds=0):
            pass
    assert "mlflow experiments restore --experiment-id 1" in caplog.text
    with pytest.raises(UserError, match="is in MLflow's bin"):
        send_pending(store)
    client.restore_experiment(experiment)
    assert send_pending(store) == 3


def test_a_stage_lasts_as_long_as_a_steady_clock_says_when_the_wall_clock_is_set_back(store, monkeypatch):
    wall = iter([2_000_000_000_000, 1_000_000_000_000])
    monkeypatch.setattr(tracking.stages, "_now_ms", lambda: next(wall))
    with track_stage(store, stage="prepare", params={}):
        pass
    assert send_pending(store) == 1
    (run,) = runs_of(store, kind="stage")
    assert 0 <= run.data.metrics["stage/wall_seconds"] < 60 and run.info.end_time >= run.info.start_time


def test_tracking_a_short_stage_takes_no_mlflow_import_and_milliseconds(root):
    code = f"""
import sys, time
from pathlib import Path
from detoxlens.tracking import resolve_store, track_stage
start = time.process_time()
with track_stage(resolve_store(Path({str(root)!r}), {{}}), stage="score", params={{"a": 1}}) as run:
    run.log_history([{{"step": i, "loss": 1.0}} for i in range(1000)])
assert time.process_time() - start < 0.3
assert "mlflow" not in sys.modules and "sqlalchemy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
