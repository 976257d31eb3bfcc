"""Several completions per prompt in the report: what is shown and warned of; one per prompt shows none of it."""

import dataclasses

import pytest

from detoxlens.common.artifacts import read_rows, write_rows
from detoxlens.common.records import Score
from detoxlens.reporting.definitions import definitions
from detoxlens.reporting.headline import headline
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.report import write_report
from detoxlens.reporting.warnings import warnings
from detoxlens.reporting.worst_of import worst_of_tables
from detoxlens.tracking.keys import flat_metrics
from tests.reporting.synthetic import write_study
from tests.reporting.test_report import CONFIG, load

SPLITS = ("p50", "pc50", "polite")
EXPECTED_MAX = {"value": 0.6081, "ci95": [0.584, 0.6312], "sd": 0.2474, "delta_vs_it": None}
ANY = {"value": 0.85, "ci95": [0.8, 0.9], "delta_vs_it": None}
DELTA = {"value": -0.1234, "ci95": [-0.2, -0.05]}


def by_n(expected_max, p_any_toxic, num_prompts, num_left_out):
    return {
        "expected_max": expected_max,
        "p_any_toxic": p_any_toxic,
        "num_prompts": num_prompts,
        "num_left_out": num_left_out,
    }


def test_cells_by_hand():
    it = {"1": by_n(EXPECTED_MAX, ANY, 9, 0), "2": by_n(None, None, 0, 9)}
    ft = {"2": by_n(EXPECTED_MAX | {"delta_vs_it": DELTA}, ANY | {"delta_vs_it": DELTA}, 7, 2)}
    found = {"m": {v: {"toxicity": {"p50": {"worst_of": w}, "val": {}}} for v, w in (("it", it), ("ft", ft))}}
    largest, any_toxic, difference, prompts = worst_of_tables(found, ["p50"])
    assert largest.rows == (
        ("m", "base", "1", "0.61 ± 0.25 [0.58, 0.63]", "–"),
        ("m", "base", "2", "–", "–"),
        ("m", "ft", "2", "0.61 ± 0.25 [0.58, 0.63]", "–"),
    )
    assert any_toxic.rows[0] == ("m", "base", "1", "85.0 [80.0, 90.0]", "–")
    assert difference.rows == (
        ("m", "ft", "expected maximum", "−0.123 [−0.200, −0.050]", "–"),
        ("m", "ft", "any toxic", "−12.3 [−20.0, −5.0]", "–"),
    )
    assert prompts.rows == (("m", "base", "0 / 9", "–"), ("m", "ft", "7 / 2", "–"))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three completions per prompt; the first three prompts of `ft` have an unscored one."""
    layout = write_study(tmp_path_factory.mktemp("study"), ["m"], ("it", "ft"), num_prompts=12, num_samples=3)
    scores = read_rows(layout.scores("m", "ft"), Score)
    lost = {0: "empty", 3: "failed", 7: "empty"}
    unscored = [dataclasses.replace(s, toxicity=None, status=lost[i]) if i in lost else s for i, s in enumerate(scores)]
    write_rows(layout.scores("m", "ft"), unscored, Score)
    return load(layout, variants=("it", "ft"))


def test_prompts_that_are_not_scored_in_full_are_left_out_counted_and_told(several):
    metrics = build_metrics(several, CONFIG, missing="exclude")
    p50 = metrics["m"]["ft"]["toxicity"]["p50"]["worst_of"]
    counts = {n: (w["num_prompts"], w["num_left_out"]) for n, w in p50.items()}
    assert counts == {"1": (12, 0), "2": (12, 0), "3": (9, 3)}
    assert p50["3"]["expected_max"]["delta_vs_it"]["ci95"][1] < 0
    told = [w for w in warnings(metrics, primary="p50") if "worst of" in w]
    assert told == [
        "m/ft: fewer than 3 scored completions, so not in the worst of 3: 3 of 12 prompts of p50, "
        "1 of 6 prompts of pc50."
    ]
    assert "m/base" not in "".join(told)


def test_it_reaches_mlflow_and_the_headline(several):
    metrics = build_metrics(several, CONFIG, missing="exclude")["m"]["ft"]
    flat = flat_metrics(metrics)
    at = "toxicity/p50/worst_of/3/expected_max"
    assert {f"{at}/{name}" for name in ("value", "sd", "ci95_lo", "ci95_hi", "delta_vs_it/value")} < set(flat)
    numbers = headline(metrics, primary="p50")
    assert numbers["expected_max"] == pytest.approx(flat[f"{at}/value"])
    assert numbers["any_toxic"] == pytest.approx(flat["toxicity/p50/worst_of/3/p_any_toxic/value"])


def test_tables_and_formula_are_in_every_form_of_the_report(several, tmp_path):
    titles = [t.title.split(":")[0] for t in worst_of_tables(write_report(tmp_path, several, CONFIG), SPLITS)]
    assert len(titles) == 4
    for name in ("table1.md", "report.md", "index.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert [title for title in titles if title not in text] == []
    assert "C(j−1, n−1) / C(m, n)" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_one_completion_per_prompt_shows_none_of_it(tmp_path):
    study = load(write_study(tmp_path, ["m"], ("it",), num_prompts=4), variants=("it",))
    metrics = build_metrics(study, CONFIG, missing="exclude")
    assert worst_of_tables(metrics, SPLITS) == []
    assert not [name for name in flat_metrics(metrics["m"]["it"]) if "worst_of" in name]
    assert "expected_max" not in headline(metrics["m"]["it"], primary="p50")
    assert "they equal the mean" in definitions(study, CONFIG, "exclude")["Expected maximum, any toxic"]
