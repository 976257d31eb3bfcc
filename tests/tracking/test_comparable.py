"""The run to compare: complete, and the same content twice is one run."""

import json

import pytest

from detoxlens import tracking
from detoxlens.common.errors import UserError
from detoxlens.tracking import Curve, dvc_md5, track_stage, write_comparable_run
from detoxlens.tracking.runs import keep_one
from detoxlens.tracking.store import open_client
from tests.tracking.stores import KEY, NEOX_FT, NOISE, everything, runs_of

pytestmark = pytest.mark.filterwarnings(NOISE)


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


def test_a_run_names_the_outputs_it_is_about_and_a_newer_report_only_moves_the_names(store, files):
    adapter, page = {"adapters/tiny-neox/ft": "a.dir"}, {"reports/index.html": "b"}
    first = write_comparable_run(store, **NEOX_FT, **(files | {"outputs": adapter | page}))
    again = write_comparable_run(store, **NEOX_FT, **(files | {"outputs": adapter | {"reports/table1.md": "c"}}))
    assert again == first
    tags = open_client(store)[0].get_run(first).data.tags
    assert {k: v for k, v in tags.items() if k.startswith("dvc/")} == {
        "dvc/adapters/tiny-neox/ft": "a.dir",
        "dvc/reports/table1.md": "c",
    }


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


def test_a_run_without_texts_never_replaces_one_with_them_and_is_replaced_by_it(store, files):
    from_git = files | {"completions": None, "adapter": None, "curves": []}
    poor = write_comparable_run(store, **NEOX_FT, **from_git)
    assert write_comparable_run(store, **NEOX_FT, **from_git) == poor
    assert set(everything(store, poor)["artifacts"]) == {"figures/entropy.svg"}
    full = write_comparable_run(store, **NEOX_FT, **files)
    before = everything(store, full)
    assert full != poor and "completions.json" in before["artifacts"]
    assert write_comparable_run(store, **NEOX_FT, **from_git) == full
    assert everything(store, full) == before and len(runs_of(store, kind="variant")) == 1


def test_a_variant_without_adapter_and_another_key_makes_another_run(store, files):
    write_comparable_run(store, **NEOX_FT, **files)
    base = {"model": "tiny-neox", "variant": "it", "key": "b" * 64}
    write_comparable_run(store, **base, **(files | {"adapter": None}))
    assert [r.info.run_name for r in runs_of(store, kind="variant")] == ["tiny-neox/ft", "tiny-neox/base"]


def test_curves_beyond_mlflows_batch_limit_arrive_whole(store, files):
    curve = Curve(name="ppo/reward", points=tuple((i, i / 2) for i in range(2345)))
    run_id = write_comparable_run(store, **NEOX_FT, **(files | {"curves": [curve]}))
    assert everything(store, run_id)["histories"]["ppo/reward"] == [(i, i / 2) for i in range(2345)]


@pytest.mark.parametrize(
    ("theirs", "their_status", "stay"),
    [
        (5, "RUNNING", "theirs"),  # older than mine: mine goes
        (20, "FINISHED", "mine"),  # younger and done: theirs goes
        (20, "RUNNING", "mine theirs"),  # younger, still being written: its writer takes it away
    ],
)
def test_of_runs_that_two_machines_made_at_once_the_oldest_stays_with_all_children(store, theirs, their_status, stay):
    client, experiment = open_client(store)
    tags = {"detoxlens.key": KEY, "detoxlens.kind": "variant"}
    mine = client.create_run(experiment, start_time=10, tags=tags, run_name="mine")
    other = client.create_run(experiment, start_time=theirs, tags=tags, run_name="theirs")
    children = [client.create_run(experiment, tags={"mlflow.parentRunId": r.info.run_id}) for r in (mine, other)]
    client.update_run(other.info.run_id, status=their_status)
    kept = keep_one(client, experiment, mine, tags)
    assert kept.info.run_name == stay.split()[0]
    assert sorted(r.info.run_name for r in runs_of(store, key=KEY)) == stay.split()
    parents = {client.get_run(c.info.run_id).data.tags["mlflow.parentRunId"] for c in children}
    assert parents == {r.info.run_id for r in (mine, other) if r.info.run_name in stay}
