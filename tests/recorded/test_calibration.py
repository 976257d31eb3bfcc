"""A scorer read in its reference's terms: rates by hand, intervals that know the calibration's own uncertainty."""

import json

import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import Score
from detoxlens.params.report import Bootstrap
from detoxlens.recorded.calibration import Calibration, Fit, Map, equivalent_rates

BOOTSTRAP = Bootstrap(num_resamples=200, seed=0)
HALVES = Map((0.0, 1.0), (0.0, 0.5))


def calibration(*drawn: Fit) -> Calibration:
    fit = Fit(0.6, HALVES)
    return Calibration(
        scorer="judge",
        scorer_version="1",
        against="p.csv: score",
        fit=fit,
        drawn=drawn or (fit,),
        num_fitted=100,
        held_out={},
        version="f" * 16,
    )


def scores(*toxicities, version="1", scorer="judge"):
    return [
        Score(
            prompt_id=str(n),
            sample_index=0,
            scorer=scorer,
            scorer_version=version,
            label="x",
            activation="sigmoid",
            truncated=False,
            toxicity=t,
            status="empty" if t is None else "ok",
            error="",
        )
        for n, t in enumerate(toxicities)
    ]


def test_rates_by_threshold_and_by_map():
    # it: .2 .8 .9 -> 2 of 3 above .6, map (.1 + .4 + .45) / 3; ft lost the third: .2 .4 -> 0, (.1 + .2) / 2
    found = equivalent_rates(calibration(), {"it": scores(0.2, 0.8, 0.9), "ft": scores(0.2, 0.4, None)}, BOOTSTRAP)
    assert found["it"]["threshold"]["value"] == pytest.approx(2 / 3)
    assert found["it"]["isotonic"]["value"] == pytest.approx(0.95 / 3)
    assert found["it"]["threshold"]["delta_vs_it"] is None
    assert found["ft"]["threshold"]["value"] == 0
    assert found["ft"]["isotonic"]["value"] == pytest.approx(0.15)
    # on the two prompts both have: it .2 .8 -> 1/2 above, map (.1 + .4) / 2
    assert found["ft"]["threshold"]["delta_vs_it"]["value"] == pytest.approx(-0.5)
    assert found["ft"]["isotonic"]["delta_vs_it"]["value"] == pytest.approx(0.15 - 0.25)
    assert equivalent_rates(calibration(), {"it": scores(None)}, BOOTSTRAP) == {"it": {}}


def test_the_interval_covers_the_calibration_too():
    same = {"it": scores(*[0.5] * 30)}  # no variation between prompts: what is left is the calibration's
    sure = equivalent_rates(calibration(), same, BOOTSTRAP)["it"]["isotonic"]
    assert sure["ci95"] == pytest.approx([0.25, 0.25])
    unsure = calibration(Fit(0.4, HALVES), Fit(0.6, Map((0.0, 1.0), (0.2, 0.8))))
    found = equivalent_rates(unsure, same, BOOTSTRAP)["it"]
    assert found["isotonic"]["ci95"] == pytest.approx([0.25, 0.5])
    assert found["threshold"]["ci95"] == [0.0, 1.0]


def test_scores_keep_their_raw_rows_and_get_a_label_of_their_own():
    raw = [*scores(0.4, None), *scores(0.9, scorer="other")]
    rows = calibration().apply(raw)
    assert [(r.scorer, r.toxicity, r.status) for r in rows] == [
        ("calibrated:judge", 0.2, "ok"),
        ("calibrated:judge", None, "empty"),
    ]
    assert {(r.scorer_version, r.activation) for r in rows} == {("1+" + "f" * 16, "isotonic")}
    with pytest.raises(UserError, match="made with judge of version 1, but its version is now 2"):
        calibration().apply(scores(0.4, version="2"))


def test_a_file_that_is_no_calibration_is_told(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"scorer": "judge"}))
    with pytest.raises(UserError, match=r"toxicity\.calibration: .*c\.json is no file that this version"):
        Calibration.read(tmp_path / "c.json")
    with pytest.raises(UserError, match="does not exist"):
        Calibration.read(tmp_path / "d.json")
