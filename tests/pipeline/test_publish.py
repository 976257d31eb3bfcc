"""The key by which MLflow finds the run of a (model, variant), and the runs that a fresh clone can write."""

import shutil
import subprocess

import pytest

from detoxlens.common.artifacts import read_json, write_text
from detoxlens.common.machine import machine
from detoxlens.params.load import Params, load_params
from detoxlens.pipeline.publish import GLANCE, GLANCE_CURVE, at_a_glance, comparable_key, onset_curves, publish_runs
from detoxlens.reporting import html
from detoxlens.reporting.dated import UNDATED, WHERE
from detoxlens.tracking import resolve_store, stored_runs, track_stage
from tests.root import ROOT
from tests.tracking.stores import NOISE


def test_the_key_follows_the_settings_and_the_data(tmp_path):
    params = load_params(ROOT / "params.yaml")
    key = comparable_key(ROOT, Params(params.raw), "tiny-neox", "rl")
    assert key == comparable_key(ROOT, Params(params.raw), "tiny-neox", "rl")
    params.raw["sweep"]["seed"] += 1  # what a sweep tries is no setting of a run
    assert key == comparable_key(ROOT, Params(params.raw), "tiny-neox", "rl")
    params.raw["ppo"]["learning_rate"] *= 2
    assert key != comparable_key(ROOT, Params(params.raw), "tiny-neox", "rl")


def test_a_setting_of_other_variants_or_of_the_report_does_not_change_the_key():
    def keys(**changes):
        params = load_params(ROOT / "params.yaml")
        for name, change in changes.items():
            params.raw[name] |= change
        return [comparable_key(ROOT, Params(params.raw), "tiny-neox", variant) for variant in ("it", "ft", "rl")]

    it, ft, rl = keys()
    assert keys(report={"num_examples": 3}) == [it, ft, rl]
    assert keys(ppo={"gamma": 0.9})[:2] == [it, ft] and keys(ppo={"gamma": 0.9})[2] != rl
    changed = keys(sft={"num_epochs": 1})
    assert changed[0] == it and changed[1] != ft and changed[2] == rl


@pytest.mark.filterwarnings(NOISE)
def test_a_fresh_clone_without_data_texts_or_adapters_writes_its_runs_and_names_what_they_lack(tmp_path):
    listed = ["git", "ls-files", "params.yaml", "data/sample", "reports/metrics.json", "reports/figures"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    params = load_params(tmp_path / "params.yaml")
    params.raw["run"]["models"] = ["tiny-neox"]
    store = resolve_store(tmp_path, {})
    without = publish_runs(tmp_path, Params(params.raw), store)
    assert without == ["tiny-neox/base", "tiny-neox/ft", "tiny-neox/rl"]
    assert sorted(run.name for run in stored_runs(store)) == without
    assert not (tmp_path / "reports/dated.html").exists()  # the page is not in git


@pytest.mark.filterwarnings(NOISE)
def test_the_page_gets_a_dated_copy_and_stays_the_same_bytes_itself(tmp_path):
    for name in ("params.yaml", "reports/metrics.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    params = load_params(tmp_path / "params.yaml")
    params.raw["run"]["models"] = ["tiny-neox"]
    page = html.page([], {"Provenance": [html.term_list({UNDATED: WHERE})]})
    write_text(tmp_path / "reports/index.html", page)
    store = resolve_store(tmp_path, {})
    with track_stage(store, stage="report", params={}):
        pass
    publish_runs(tmp_path, Params(params.raw), store)
    dated = (tmp_path / "reports/dated.html").read_text(encoding="utf-8")
    assert f"<dt>Hardware</dt><dd>{machine()}</dd>" in dated and "in 1 stages that ran here" in dated
    assert (tmp_path / "reports/index.html").read_text(encoding="utf-8") == page
    assert [p.read_text(encoding="utf-8") for p in store.state.rglob("artifacts/dated.html")] == 3 * [dated]


def test_event_studies_are_curves_whose_step_is_the_lag():
    study = [{"lag": lag, "value": value, "num_events": 40} for lag, value in ((-1, 0.1), (0, -0.5), (1, None))]
    metrics = {"attribution": {"toxic_words": {"event_study": {"prompt_entropy_bits": study, "jensen_shannon": []}}}}
    (curve,) = onset_curves(metrics)
    assert (curve.name, curve.points) == ("toxic_words/onset/prompt_entropy_bits", ((-1, 0.1), (0, -0.5)))
    assert onset_curves({"attribution": {}}) == onset_curves({"attribution": {"toxic_words": {"reason": "few"}}}) == []


def test_twenty_numbers_come_first_under_names_that_mlflows_charts_do_not_cut():
    metrics = read_json(ROOT / "reports/metrics.json")["tiny-neox"]["rl"]
    found = at_a_glance(metrics, "p50", ["nowhere", "civil"])
    names = sorted([GLANCE_CURVE, *(f"{GLANCE}/{name}" for name in found)])
    assert [int(name.removeprefix(f"{GLANCE}/")[:2]) for name in names] == list(range(1, 21))
    assert max(map(len, names)) <= 24 and None not in found.values()
    assert found["12 toxic civil"] == metrics["toxicity"]["civil"]["rate_gt_50"]
    assert found["08 toxic low"] < found["01 toxicity"] < found["09 toxic high"]
