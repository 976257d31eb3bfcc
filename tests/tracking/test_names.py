"""Every name that MLflow refuses has one that it takes, and leads back."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils import validation

from detoxlens.tracking import mlflow_name, original_name, write_comparable_run
from detoxlens.tracking.names import MAX_CHARS, changed_names
from tests.tracking.stores import NEOX_FT, NOISE, everything

pytestmark = pytest.mark.filterwarnings(NOISE)
AWKWARD = st.text(alphabet="/._x04F-a @#;\n", min_size=1, max_size=40)


@given(st.one_of(st.text(min_size=1, max_size=40), AWKWARD))
@example("..")
@example("../a//b/./c/")
@example("_x0000;")
def test_mlflow_takes_the_name_and_it_leads_back(name):
    kept = mlflow_name(name)
    for check in (validation._validate_metric_name, validation._validate_param_name, validation._validate_tag_name):
        check(kept)
    assert original_name(kept) == name


def test_usual_names_are_kept_as_they_are():
    for name in ("toxicity/p50/rate_gt_50", "1 main/01 toxicity", "scorers/hf:lab/judge/p50", "input_x_gradient"):
        assert mlflow_name(name) == name
    assert mlflow_name("scorers/hf:lab/judge@4f1c#insult/mean") == "scorers/hf:lab/judge_x0040_4f1c_x0023_insult/mean"


def test_long_names_are_cut_kept_apart_and_explained():
    long = "scorers/recorded:" + "folder/" * 60
    names = [f"{long}a/mean", f"{long}b/mean"]
    kept = [mlflow_name(name) for name in names]
    assert len(set(kept)) == 2 and {len(name) for name in kept} <= {MAX_CHARS, MAX_CHARS - 1}
    assert changed_names([*names, "plain"]) == dict(zip(kept, names, strict=True))


def test_numbers_and_params_of_awkward_names_reach_the_run_which_says_what_they_stand_for(store, files):
    grader = "scorers/hf:lab/judge@4f1c#insult/p50/rate_gt_50"
    wide = f"scorers/{'é' * 300}"
    metrics = {"scorers": {"hf:lab/judge@4f1c#insult": {"p50": {"rate_gt_50": 0.3}}, "é" * 300: 0.4}}
    params = {"splits": {"own": {"where": {"my column (%)": 1}}}}
    run = everything(store, write_comparable_run(store, **NEOX_FT, **(files | {"metrics": metrics, "params": params})))
    told = json.loads(run["artifacts"]["names.json"])
    by_name = {told.get(name, name): value for name, value in run["run"]["data"]["metrics"].items()}
    assert by_name[grader] == 0.3 and by_name[wide] == 0.4
    assert [told[name] for name in run["run"]["data"]["params"]] == ["splits.own.where.my column (%)"]
