"""Tracking against real MLflow on SQLite: what is recorded, once, whatever is killed, unchanged or unreachable."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detoxlens import tracking
from detoxlens.config import Params
from detoxlens.errors import UserError
from detoxlens.tracking import (
    Curve,
    DatasetInput,
    Store,
    charts_url,
    comparable_params,
    dvc_md5,
    finish_project_run,
    flat_metrics,
    flat_params,
    main_repository,
    prepare_store,
    read_curves,
    resolve_store,
    run_key,
    send_pending,
    track_stage,
    ui_command,
    write_comparable_run,
)
from detoxlens.tracking.store import open_client

# MLflow 3.17 with SQLAlchemy 2.1; the warning is about MLflow's own mappers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

KEY = "a" * 64
REPOSITORY = Path(__file__).parent.parent
NEOX_FT = {"model": "tiny-neox", "variant": "ft", "key": KEY}


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A migrated store, copied into each test: the migration takes seconds."""
    root = tmp_path_factory.mktemp("template")
    prepare_store(resolve_store(root, {}))
    return root


@pytest.fixture
def root(template, tmp_path) -> Path:
    (tmp_path / "project/.detoxlens").mkdir(parents=True)
    shutil.copy(template / ".detoxlens/mlflow.db", tmp_path / "project/.detoxlens/mlflow.db")
    return tmp_path / "project"


@pytest.fixture
def store(root) -> Store:
    return resolve_store(root, {})


def runs_of(store: Store, **tags: str):
    """Live runs whose `detoxlens.<name>` tags are these, oldest first."""
    client, experiment_id = open_client(store)
    found = client.search_runs([experiment_id], order_by=["attributes.start_time ASC"])
    return [r for r in found if all(r.data.tags.get(f"detoxlens.{k}") == v for k, v in tags.items())]


# Where the store is


def test_the_store_lies_in_the_main_repository_even_in_dvcs_temporary_copies_and_git_worktrees(tmp_path):
    main = tmp_path / "main"
    git = ["git", "-C", str(main), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    main.mkdir()
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"], ["worktree", "add", "-q", "../tree"]):
        subprocess.run([*git, *command], check=True)
    copy = main / ".dvc/tmp/exps/standalone/tmpabc123"
    copy_of_tree = tmp_path / "tree/.dvc/tmp/exps/tmpdef"
    for place in (copy, copy_of_tree):
        place.mkdir(parents=True)
    assert {main_repository(p) for p in (main, copy, tmp_path / "tree", copy_of_tree)} == {main.resolve()}
    assert resolve_store(copy, {}).uri == f"sqlite:///{main.resolve()}/.detoxlens/mlflow.db"


def test_a_submodule_or_a_plain_folder_is_its_own_main_repository(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.git").write_text("gitdir: ../.git/modules/sub\n")
    assert main_repository(tmp_path / "sub") == (tmp_path / "sub").resolve()
    assert main_repository(tmp_path) == tmp_path.resolve()


def test_mlflow_tracking_uri_wins(tmp_path):
    store = resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": "http://user:secret@tracking.example:5000"})
    assert store.uri == "http://user:secret@tracking.example:5000"
    assert store.artifact_root is None and store.database is None
    assert store.shown_uri == "http://tracking.example:5000"
    assert store.pending.is_relative_to(tmp_path.resolve()) and "secret" not in str(store.pending)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder_as_tracking_uri_is_refused(tmp_path, uri):
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI=.*no longer keeps runs in folders"):
        resolve_store(tmp_path, {"MLFLOW_TRACKING_URI": uri})


def test_plain_mlflow_commands_in_the_projects_root_find_the_same_store(template):
    """MLflow's default is `mlflow.db` in the working folder, and `mlflow run` exports its absolute path."""
    link = template / "mlflow.db"
    assert link.samefile(template / ".detoxlens/mlflow.db")
    assert not link.readlink().is_absolute()
    by_mlflow_run = resolve_store(template, {"MLFLOW_TRACKING_URI": f"sqlite:///{link}", "MLFLOW_RUN_ID": "abc"})
    own = resolve_store(template, {})
    assert (by_mlflow_run.pending, by_mlflow_run.artifact_root) == (own.pending, own.artifact_root)
    assert by_mlflow_run.project_run_id == "abc"


def test_artifacts_lie_in_the_state_folder_whoever_opens_the_first_run(store):
    """`mlflow run --experiment-name detoxlens` would otherwise make the experiment, with artifacts in ./mlruns."""
    client, experiment_id = open_client(store)
    for experiment in (client.get_experiment("0"), client.get_experiment(experiment_id)):
        assert "/.detoxlens/mlartifacts/" in experiment.artifact_location


def test_ui_command_names_the_store_and_its_artifacts(store):
    command = ui_command(store, port=5001)
    assert command[1:5] == ["-m", "mlflow", "ui", "--backend-store-uri"] and command[5] == store.uri
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "5001"]
    assert charts_url(store, port=5001) == "http://127.0.0.1:5001/#/experiments/1/runs?compareRunsMode=CHART"


# The store's first moments and its end

LOG_ONE_STAGE = """
import sys
from pathlib import Path
from detoxlens.tracking import resolve_store, track_stage
with track_stage(resolve_store(Path(sys.argv[1]), {}), stage=sys.argv[2], params={}, send_after_seconds=0):
    pass
"""


def test_four_processes_at_once_on_a_machine_without_a_store_all_log(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_ONE_STAGE, str(tmp_path), f"s{i}"], stderr=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    errors = [w.communicate(timeout=100)[1] for w in workers]
    assert [w.returncode for w in workers] == [0] * 4 and errors == [""] * 4
    store = resolve_store(tmp_path, {})
    assert send_pending(store) == 0
    assert sorted(r.data.tags["detoxlens.stage"] for r in runs_of(store)) == ["s0", "s1", "s2", "s3"]
    assert not (tmp_path / "mlruns").exists()


def test_a_damaged_store_is_told_in_one_paragraph(store):
    store.database.write_bytes(b"not a database, " * 1000)
    with pytest.raises(UserError, match=r"tracking store .* cannot be used: .*Move .*mlflow\.db aside"):
        prepare_store(store)


def test_a_store_of_another_mlflow_version_is_told_how_to_upgrade(store):
    import sqlite3

    with sqlite3.connect(store.database) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    with pytest.raises(UserError, match="mlflow db upgrade"):
        prepare_store(store)


def test_an_unreachable_server_costs_no_result_and_no_record(root, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = resolve_store(root, {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"})
    with track_stage(away, stage="generate", **NEOX_FT, params={}, send_after_seconds=0) as run:
        run.log_metrics({"x": 1})
    assert "cannot be used" in caplog.text and "kept and sent later" in caplog.text and "secret" not in caplog.text
    assert len(list(away.pending.glob("*.json"))) == 1
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be used.*Start the server, or unset"):
        send_pending(away)


# Stage runs


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
    prepare, finetune, generate = runs_of(store, kind="stage")
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


def test_a_record_that_mlflow_refuses_is_set_aside_and_holds_up_no_other(store, caplog):
    with track_stage(store, stage="rl", **NEOX_FT, params={}) as run:
        run.log_metrics({"reward @ end": 0.5})
    (store.pending / "0-damaged.json").write_text('{"id"')
    with track_stage(store, stage="score", **NEOX_FT, params={}):
        pass
    assert send_pending(store) == 1
    assert [r.data.tags["detoxlens.stage"] for r in runs_of(store) if r.info.status == "FINISHED"] == ["score"]
    assert "MLflow refuses the record" in caplog.text and "0-damaged.json is no record" in caplog.text
    assert len(list(store.pending.glob("*.rejected"))) == 2


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


# The run to compare

METRICS = {
    "toxicity": {"p50": {"rate_gt_50": 0.25, "ci95": [0.2, 0.3], "delta_vs_it": {"value": -0.3, "ci95": [-0.4, -0.2]}}},
    "fluency": {"perplexity": 12.5, "distinct_1": None, "note": "text"},
}


@pytest.fixture
def files(root) -> dict:
    for name in ("adapters/tiny-neox/ft", "reports/figures", "data/prepared"):
        (root / name).mkdir(parents=True)
    (root / "adapters/tiny-neox/ft/adapter_model.safetensors").write_bytes(b"weights")
    (root / "reports/figures/entropy.svg").write_text("<svg/>")
    (root / "data/prepared/prompts.parquet").write_bytes(b"prompts")
    return {
        "root": root,
        "adapter": root / "adapters/tiny-neox/ft",
        "figures": [root / "reports/figures/entropy.svg"],
        "datasets": [DatasetInput(name="prompts", path=root / "data/prepared/prompts.parquet", context="evaluation")],
        "curves": [Curve(name="entropy/own/prompt_entropy_bits", points=((0, 2.5), (1, 2.25), (2, 2.0)))],
        "completions": {
            "prompt": ["Zorgons are", "<b>Oboes</b>"],
            "completion": ["kind.", ""],
            "toxicity": [0.1, None],
        },
        "params": {"ppo": {"clip": 0.2}},
        "metrics": METRICS,
        "color": "#0072b2",
    }


def everything(store: Store, run_id: str) -> dict:
    """All that MLflow keeps of a run, histories included."""
    client, _ = open_client(store)
    run = client.get_run(run_id).to_dictionary()
    histories = {k: [(m.step, m.value) for m in client.get_metric_history(run_id, k)] for k in run["data"]["metrics"]}
    folder = Path(run["info"]["artifact_uri"].removeprefix("file://"))
    artifacts = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {"run": run, "histories": histories, "artifacts": artifacts}


def test_the_run_holds_params_metrics_curves_files_table_and_data_digests(store, files):
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    client, _ = open_client(store)
    run = client.get_run(run_id)
    assert run.info.run_name == "tiny-neox/ft" and run.info.status == "FINISHED"
    assert run.data.params == {"ppo.clip": "0.2"} and run.data.tags["mlflow.runColor"] == "#0072b2"
    assert run.data.metrics["toxicity/p50/rate_gt_50"] == 0.25
    assert run.data.metrics["toxicity/p50/delta_vs_it/ci95_lo"] == -0.4
    history = client.get_metric_history(run_id, "entropy/own/prompt_entropy_bits")
    assert [(m.step, m.value) for m in history] == [(0, 2.5), (1, 2.25), (2, 2.0)]
    artifacts = everything(store, run_id)["artifacts"]
    assert set(artifacts) == {"adapter/adapter_model.safetensors", "figures/entropy.svg", "completions.json"}
    assert json.loads(artifacts["completions.json"]) == {
        "columns": ["prompt", "completion", "toxicity"],
        "data": [["Zorgons are", "kind.", 0.1], ["<b>Oboes</b>", "", None]],
    }
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("prompts", dvc_md5(files["datasets"][0].path))
    assert json.loads(data.dataset.source) == {"path": "data/prepared/prompts.parquet"}
    assert [(t.key, t.value) for t in data.tags] == [("mlflow.data.context", "evaluation")]


def test_writing_the_same_twice_leaves_one_run_with_the_same_content(store, files):
    first = write_comparable_run(store, **NEOX_FT, **files)
    before = everything(store, first)
    assert write_comparable_run(store, **NEOX_FT, **files) == first
    assert everything(store, first) == before
    assert len(runs_of(store, kind="variant")) == 1


def test_a_write_that_was_cut_is_completed_without_doubled_points(store, files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tracking.comparable, "_log_table", lambda *_: (_ for _ in ()).throw(OSError("cut")))
        with pytest.raises(UserError, match="cut"):
            write_comparable_run(store, **NEOX_FT, **files)
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    assert len(runs_of(store, kind="variant")) == 1
    assert [step for step, _ in everything(store, run_id)["histories"]["entropy/own/prompt_entropy_bits"]] == [0, 1, 2]


def test_other_results_under_the_same_key_replace_the_run_and_keep_its_stages(store, files):
    with track_stage(store, stage="finetune", **NEOX_FT, params={}):
        pass
    old = write_comparable_run(store, **NEOX_FT, **files)
    new = write_comparable_run(store, **NEOX_FT, **(files | {"metrics": {"fluency": {"perplexity": 13.0}}}))
    assert new != old
    (run,) = runs_of(store, kind="variant")
    assert run.info.run_id == new and run.data.metrics["fluency/perplexity"] == 13.0
    assert "toxicity/p50/rate_gt_50" not in run.data.metrics
    (stage,) = runs_of(store, kind="stage")
    assert stage.data.tags["mlflow.parentRunId"] == new


def test_a_variant_without_adapter_and_another_key_makes_another_run(store, files):
    write_comparable_run(store, **NEOX_FT, **files)
    base = {"model": "tiny-neox", "variant": "it", "key": "b" * 64}
    write_comparable_run(store, **base, **(files | {"adapter": None}))
    assert [r.info.run_name for r in runs_of(store, kind="variant")] == ["tiny-neox/ft", "tiny-neox/it"]


def test_curves_beyond_mlflows_batch_limit_arrive_whole(store, files):
    curve = Curve(name="ppo/reward", points=tuple((i, i / 2) for i in range(2345)))
    run_id = write_comparable_run(store, **NEOX_FT, **(files | {"curves": [curve]}))
    assert everything(store, run_id)["histories"]["ppo/reward"] == [(i, i / 2) for i in range(2345)]


def test_the_reports_curve_tables_become_metrics_along_steps(tmp_path):
    entropy, training = tmp_path / "entropy_curves.csv", tmp_path / "training_curves.csv"
    entropy.write_text(
        "model,variant,measure,text_source,group,step,mean,lo,hi,n,unit\n"
        "tiny-neox,ft,prompt_entropy_bits,own,all,1,2.5,2.4,2.6,40,bit\n"
        "tiny-neox,ft,prompt_entropy_bits,own,all,2,0,0,0,39,bit\n"
        "tiny-neox,ft,prompt_entropy_bits,it,toxic_by_it,1,2.0,1.9,2.1,40,bit\n"
        "tiny-neox,it,prompt_entropy_bits,own,all,1,9,9,9,40,bit\n"
    )
    training.write_text("model,variant,metric,step,value\ntiny-neox,ft,sft/loss_nats,20,1.5\n")
    assert read_curves(entropy, training, model="tiny-neox", variant="ft") == [
        Curve(name="entropy/own/prompt_entropy_bits", points=((1, 2.5), (2, 0.0))),
        Curve(name="entropy/it/toxic_by_it/prompt_entropy_bits", points=((1, 2.0),)),
        Curve(name="sft/loss_nats", points=((20, 1.5),)),
    ]
    with pytest.raises(UserError, match=r"gone\.csv does not exist"):
        read_curves(tmp_path / "gone.csv", training, model="tiny-neox", variant="ft")


# Inside `mlflow run`


def open_project_run(root: Path, store: Store) -> Store:
    """What `mlflow run` does: a run with the entry point's parameters, its id exported."""
    client, _ = open_client(store)
    run = client.create_run("0")
    client.log_param(run.info.run_id, "models", "tiny-neox")
    return resolve_store(root, {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_RUN_ID": run.info.run_id})


def test_the_project_run_is_parent_of_what_it_started_and_params_do_not_collide(root, store, files):
    project = open_project_run(root, store)
    with track_stage(project, stage="prepare", params={"models": "other"}):
        pass
    with track_stage(project, stage="finetune", **NEOX_FT, params={"models": "other"}):
        pass
    run_id = write_comparable_run(project, **NEOX_FT, **files)
    finish_project_run(project, [KEY])
    client, _ = open_client(store)
    (prepare,) = runs_of(store, stage="prepare")
    (finetune,) = runs_of(store, stage="finetune")
    assert prepare.data.tags["mlflow.parentRunId"] == project.project_run_id
    assert finetune.data.tags["mlflow.parentRunId"] == run_id
    assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == project.project_run_id
    tags = client.get_run(project.project_run_id).data.tags
    assert (tags["detoxlens.noop"], tags["detoxlens.runs"]) == ("false", run_id)


def test_a_project_run_that_found_nothing_to_do_is_a_noop_with_links_to_the_originals(root, store, files):
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    project = open_project_run(root, store)
    finish_project_run(project, [KEY, "not run yet"])
    tags = open_client(store)[0].get_run(project.project_run_id).data.tags
    assert (tags["detoxlens.noop"], tags["detoxlens.runs"]) == ("true", run_id)
    assert f"/runs/{run_id})" in tags["mlflow.note.content"] and "Nothing had changed" in tags["mlflow.note.content"]
    assert "mlflow.parentRunId" not in open_client(store)[0].get_run(run_id).data.tags


@pytest.mark.parametrize(
    ("entry_point", "given", "command"),
    [
        ("main", {}, "repro --models unchanged --variants unchanged --seed unchanged"),
        ("main", {"models": "a,b", "seed": "3"}, "repro --models a,b --variants unchanged --seed 3"),
        ("evaluate", {"variants": "it ft"}, "repro --evaluate-only --models unchanged --variants 'it ft'"),
    ],
)
def test_mlproject_entry_points_call_the_command_line(entry_point, given, command):
    from mlflow.projects._project_spec import load_project

    project = load_project(str(REPOSITORY))
    made = project.get_entry_point(entry_point).compute_command(given, storage_dir=None)
    assert made == f"python -m detoxlens.cli {command}"
    assert (REPOSITORY / project.env_config_path).samefile(REPOSITORY / "python_env.yaml")


def test_outside_mlflow_run_there_is_nothing_to_finish(store):
    finish_project_run(store, [KEY])
    assert runs_of(store) == []


# Names and keys

TEMPLATE = {"user": "{text}", "bot": "b", "reply": "{text}", "end": "e"}
RAW = {
    "run": {"models": ["a"], "variants": ["it", "ft"], "sft_variants": ["ft"], "seed": 0, "num_threads": 1},
    "variants": {
        "it": {"kind": "base"},
        "ft": {"kind": "sft", "overrides": {"lora": {"r": 4}}},
        "rl": {"kind": "rl", "algorithm": "ppo", "init_from": "ft"},
    },
    "models": {
        name: {
            "source": "s",
            "template": {"user": "{text}", "bot": "b", "reply": "{text}", "end": "e"},
            "overrides": own,
        }
        for name, own in {"a": {}, "b": {"lora": {"r": 64, "alpha": 32}}}.items()
    },
    "data": {"rtp": "x"},
}
RAW["lora"] = {"r": 8, "alpha": 16}


def changed(**sections) -> Params:
    return Params(RAW | sections)


def key_of(params: Params, *, model: str = "a", variant: str = "ft", **md5s: str) -> str:
    settings = comparable_params(params, model=model, variant=variant)
    return run_key(model=model, variant=variant, params=settings, input_md5s=md5s)


def test_comparable_params_have_the_overrides_applied_variant_last():
    assert comparable_params(Params(RAW), model="b", variant="rl")["lora"] == {"r": 64, "alpha": 32}
    assert "lora" not in comparable_params(Params(RAW), model="b", variant="it")
    assert comparable_params(Params(RAW), model="b", variant="ft")["lora"] == {"r": 4, "alpha": 32}
    assert list(comparable_params(Params(RAW), model="a", variant="rl")["init_from"]) == ["ft"]


def test_the_key_changes_with_settings_inputs_and_ancestors_only():
    key = key_of(Params(RAW))
    assert key == key_of(changed(run=RAW["run"] | {"models": ["a", "b"], "variants": ["it"]}))
    assert key == key_of(changed(models={"a": RAW["models"]["a"]}))
    assert key == key_of(changed(variants={k: v for k, v in RAW["variants"].items() if k != "rl"}))
    assert key != key_of(changed(run=RAW["run"] | {"seed": 1}))
    assert key != key_of(changed(lora={"r": 8, "alpha": 32}))
    assert key != key_of(Params(RAW), data="0" * 32)
    assert len({key, key_of(Params(RAW), model="b"), key_of(Params(RAW), variant="it")}) == 3
    other_ft = changed(variants=RAW["variants"] | {"ft": {"kind": "sft", "seed": 7}})
    assert key_of(Params(RAW), variant="rl") != key_of(other_ft, variant="rl")


def test_flat_params_keep_types_readable_and_values_within_mlflows_limit():
    nested = {"ppo": {"clip": 0.2, "layers": ["a", "b"], "seed": None, "name": "x"}, "t": {"user": "y" * 9000}}
    assert flat_params(nested) == {
        "ppo.clip": "0.2",
        "ppo.layers": '["a", "b"]',
        "ppo.seed": "null",
        "ppo.name": "x",
        "t.user": "y" * 6000,
    }


def test_flat_metrics_split_intervals_and_leave_out_what_is_no_number():
    assert flat_metrics(METRICS | {"n": {"nan": float("nan"), "num": 3, "ok": True}}) == {
        "toxicity/p50/rate_gt_50": 0.25,
        "toxicity/p50/ci95_lo": 0.2,
        "toxicity/p50/ci95_hi": 0.3,
        "toxicity/p50/delta_vs_it/value": -0.3,
        "toxicity/p50/delta_vs_it/ci95_lo": -0.4,
        "toxicity/p50/delta_vs_it/ci95_hi": -0.2,
        "fluency/perplexity": 12.5,
        "n/num": 3.0,
        "n/ok": 1.0,
    }


def test_dvc_md5_is_what_dvc_computes(tmp_path):
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out/b.txt").write_text("b")
    (tmp_path / "out/deep/a.txt").write_text("a")
    (tmp_path / "out/deep.txt").write_text("c")
    (tmp_path / "file.txt").write_text("data\n")
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["init", "-q", "--no-scm"], ["add", "-q", "out", "file.txt"]):
        subprocess.run([*dvc, *command], cwd=tmp_path, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"})
    for name in ("out", "file.txt"):
        assert f"md5: {dvc_md5(tmp_path / name)}\n" in (tmp_path / f"{name}.dvc").read_text()
    with pytest.raises(UserError, match="gone does not exist"):
        dvc_md5(tmp_path / "gone")
