"""Front, choice, tables and conclusions of a study whose trials are given."""

import csv
import html
import io
import re

import optuna
import pytest
from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from detoxlens.common.artifacts import read_json
from detoxlens.sweep.findings import conclusions, find, pareto
from detoxlens.sweep.plots import label, page, pictures, without_attributes
from detoxlens.sweep.results import trials_csv, write_results

TOXICITY, SHIFT = "toxicity/val/rate_gt_50", "attribution/val/entropy_shift_bits/absolute/value"
DEFINITION = {
    "objectives": {TOXICITY: "minimize", SHIFT: "minimize"},
    "constraints": {"fluency/val/perplexity": {"max": 4.0}},
    "space": {
        "lora.r": {"type": "int", "low": 1, "high": 9, "step": 1, "log": False},
        "lora.target_modules": {"type": "categorical", "choices": [["dense"], ["dense", "query_key_value"]]},
    },
    "method": "ppo",
    "variant": "rl",
}
SPACE = {
    "lora.r": optuna.distributions.IntDistribution(1, 9),
    "lora.target_modules": optuna.distributions.CategoricalDistribution(['["dense"]', '["dense", "query_key_value"]']),
}
STATES = optuna.trial.TrialState


def add(study, r, values, perplexity=2.0, reason=None):
    complete = values is not None
    trial = optuna.create_trial(
        params={"lora.r": r, "lora.target_modules": '["dense"]' if r % 2 else '["dense", "query_key_value"]'},
        distributions=SPACE,
        values=values,
        state=STATES.COMPLETE if complete else STATES.FAIL,
        user_attrs={"reason": reason} if reason else {"metrics": {TOXICITY: 0.0, "fluency/val/perplexity": perplexity}},
        constraints={"fluency/val/perplexity <= 4": perplexity - 4} if complete else None,
    )
    study.add_trial(trial)


@pytest.fixture
def study():
    """By (toxicity, shift): 0 and 2 and 4 are the front, 1 is beaten by 2, 3 breaks the constraint, 5 failed."""
    study = optuna.create_study(study_name="s", directions=["minimize", "minimize"])
    for r, values in ((1, (0.6, 0.0)), (2, (0.3, 0.2)), (3, (0.2, 0.1)), (4, (0.0, 0.0)), (5, (0.0, 0.4))):
        add(study, r, values, perplexity=9.0 if r == 4 else 2.0)
    add(study, 6, None, reason='the KL exploded, "quoted"')
    return study


@pytest.fixture
def found(study):
    return find(study, DEFINITION, {TOXICITY: 0.7, SHIFT: 0.0})


def test_pareto_by_hand():
    assert pareto({"a": (1, 2), "b": (2, 1), "c": (2, 2), "d": (1, 2), "e": (3, 0)}) == {"a", "b", "d", "e"}
    assert pareto({}) == set()


def test_the_front_is_feasible_and_in_order(study, found):
    assert [t.number for t in found.front] == [4, 2, 0]
    assert {t.number for t in study.best_trials} == {4, 2, 0}  # Optuna agrees


def test_the_best_is_nearest_to_the_ideal(found):
    # scaled to the front, toxicity 0..0.6 and shift 0..0.4: (0, 1), (1/3, 1/4), (1, 0) -> 17/144 is least
    assert found.best.number == 2


def test_a_direction_turned_round_turns_the_choice(study):
    study = optuna.create_study(study_name="s", directions=["maximize", "minimize"])
    for r, values in ((1, (0.6, 0.0)), (3, (0.2, 0.1))):
        add(study, r, values)
    found = find(study, DEFINITION | {"objectives": {TOXICITY: "maximize", SHIFT: "minimize"}}, {})
    assert [t.number for t in found.front] == [0]


def test_every_trial_is_in_the_table_with_its_fate(found):
    rows = list(csv.DictReader(io.StringIO(trials_csv(found))))
    assert [r["trial"] for r in rows] == list("012345")
    assert [r["on_front"] for r in rows] == ["True", "False", "True", "False", "True", "False"]
    assert [r["feasible"] for r in rows] == ["True", "True", "True", "False", "True", "False"]
    assert (rows[5]["state"], rows[5]["reason"], rows[5][TOXICITY]) == ("failed", 'the KL exploded, "quoted"', "")
    assert rows[1]["lora.target_modules"] == '["dense", "query_key_value"]'


def test_files_are_complete_and_the_same_bytes_again(found, study, tmp_path):
    for name in ("a", "b"):
        write_results(tmp_path / name, found, study)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    kinds = ("importances", "parallel-1", "parallel-2", "pareto", "slices-1", "slices-2")
    figures = [f"{name}.{kind}" for name in kinds for kind in ("png", "svg")]
    assert names == sorted(
        ["best_params.yaml", "interactive.html", "pareto.json", "conclusions.md", "trials.csv", *figures]
    )
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    best = YAML(typ="safe").load((tmp_path / "a/best_params.yaml").read_text("utf-8"))
    assert best == {"variants": {"rl": {"overrides": {"lora": {"r": 3, "target_modules": ["dense"]}}}}}
    front = read_json(tmp_path / "a/pareto.json")
    assert [point["trial"] for point in front] == [4, 2, 0]
    assert front[1]["objectives"] == {TOXICITY: 0.2, SHIFT: 0.1}


def test_the_conclusions_say_what_the_data_say(found):
    text = conclusions(found)
    assert text.startswith("5 trials of `rl` were completed and 1 could not be trained.")
    assert "1 broke a constraint (fluency perplexity at most 4)" in text
    assert (
        "front has 3 points" in text
        and "Toxicity rate > .5 (minimized) runs from 0 to 0.6 along it; base has 0.7" in text
    )
    assert "trial 2 (0.2, 0.1)" in text and "a hint only" in text


def test_nothing_feasible_is_said_and_drawn(tmp_path):
    study = optuna.create_study(study_name="s", directions=["minimize", "minimize"])
    for trials in (0, 1):
        if trials:
            add(study, 1, (0.5, 0.5), perplexity=9)
        found = find(study, DEFINITION, {})
        write_results(tmp_path, found, study)
        assert "No feasible trial" in (tmp_path / "conclusions.md").read_text("utf-8")
        assert found.best is None and read_json(tmp_path / "pareto.json") == []


def test_the_page_holds_every_complete_trial_and_loads_nothing(found, study):
    text = page(without_attributes(study, found), found, conclusions(found))
    plotly = get_plotlyjs()
    assert "trials of <code>rl</code> were completed" in text and "`" not in text.replace(plotly, "")
    ours = text.replace(plotly, "")
    assert plotly in text and "src=" not in ours and "<link" not in ours and "http" not in ours
    divs = ("pareto", "importances", "slices-1", "parallel-1", "slices-2", "parallel-2")
    assert ours.count("sendChartToCloud") == len(divs)  # the button that would upload a figure, removed from each
    for div in divs:
        assert f'id="{div}"' in ours
    pareto_only = ours.partition('id="importances"')[0]
    assert sorted(set(re.findall(r"number\\+\": (\d)", pareto_only))) == list("01234")
    assert "toxicity rate > .5" in html.unescape(ours.encode().decode("unicode_escape")) and "base" in ours


def test_an_infeasible_trial_is_grey_and_the_base_model_is_marked(found, study):
    from optuna.visualization import plot_pareto_front

    shown = without_attributes(study, found)
    grey = plot_pareto_front(shown).data[0]
    assert grey.marker.color == "#cccccc" and (list(grey.x), list(grey.y)) == ([0.0], [0.0])  # trial 3


def test_nothing_of_the_machine_is_drawn(found, study):
    shown = without_attributes(study, found)
    assert [t.number for t in shown.trials] == [t.number for t in study.trials]
    assert all(not t.user_attrs for t in shown.trials)
    assert [t.params for t in shown.trials] == [t.params for t in study.trials]


def test_a_param_searched_by_its_logarithm_has_a_logarithmic_axis():
    from optuna.visualization import plot_slice

    study = optuna.create_study(study_name="s", directions=["minimize"])
    space = {"ppo.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)}
    for rate in (1e-4, 1e-3, 1e-2):
        study.add_trial(
            optuna.create_trial(params={"ppo.learning_rate": rate}, distributions=space, values=[rate], constraints={})
        )
    one = DEFINITION | {
        "objectives": {TOXICITY: "minimize"},
        "space": {"ppo.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "step": None, "log": True}},
    }
    found = find(study, one, {})
    shown = without_attributes(study, found)
    assert plot_slice(shown).layout.xaxis.type == "log"
    assert sorted(pictures(shown, found)) == ["history", "parallel", "slices"]  # three trials: no importances


def test_names_of_metrics_are_words():
    assert label(TOXICITY) == "toxicity rate > .5" and label(SHIFT) == "entropy shift bits absolute"
