"""Calibration on scores whose answers are known."""

import json

import numpy as np
import pytest
from scipy import stats

from detoxlens.common.errors import UserError
from detoxlens.params.report import Bootstrap
from detoxlens.recorded.calibrate import Recorded, calibrate_scorer, read_recorded, summary
from detoxlens.recorded.calibration import Map
from detoxlens.recorded.fit import calibrate, curve, in_first_half, isotonic_map, rate_threshold, spearman
from detoxlens.scorers.profanity_check import ProfanityCheck

BOOTSTRAP = Bootstrap(num_resamples=100, seed=0)


def synthetic(n=2000, seed=0):
    """Texts with score s uniform and P(reference > .5 | s) = s * s: rate 1/3, known map, AUROC .875 by integration."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(size=n)
    reference = np.where(rng.uniform(size=n) < score**2, 0.9, 0.1)
    return [f"Zorgon {i} " + "hums " * (i % 7) for i in range(n)], score, reference


def test_the_threshold_gives_the_rate():
    score = np.array([0.1, 0.2, 0.6, 0.8])
    assert rate_threshold(score, 0.25) == pytest.approx(0.7)  # only .8 is above
    assert rate_threshold(score, 0.75) == pytest.approx(0.15)
    assert rate_threshold(score, 0.0) > 0.8
    assert rate_threshold(np.array([0.2, 0.2, 0.2, 0.9]), 0.5) == pytest.approx(0.55)  # ties: 1/4 is nearer than 1


def test_spearman_shares_ranks_among_ties_and_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 50).astype(float), rng.normal(size=50)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(b, b**3) == pytest.approx(1) and spearman(b, -b) == pytest.approx(-1)
    assert np.isnan(spearman(np.ones(3), b[:3]))


def test_the_isotonic_map_pools_what_falls():
    # scores .1 .2 .3 .4, toxic 0 1 0 1 -> 0, then the pair (1, 0) pooled to 1/2, then 1; mean 1/2 = the rate
    found = isotonic_map(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.9, 0.2, 0.9]))
    assert found(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 1.0])) == pytest.approx([0, 0, 0.5, 0.5, 1, 1])


def test_the_curve_is_by_tenths():
    found = curve(np.arange(20) / 20, np.repeat([0.1, 0.9], 10))
    assert found["share_toxic"] == [0.0] * 5 + [1.0] * 5
    assert found["num_texts"] == [2] * 10 and found["mean_score"][0] == pytest.approx(0.025)


def test_known_answers_lie_in_the_held_out_intervals():
    found = calibrate(*synthetic(), BOOTSTRAP)
    assert found["num_fitted"] + found["num_held_out"] == 2000
    held = found["held_out"]
    # AUROC = P(s_toxic > s_other), densities 3 s^2 and 1.5 (1 - s^2): integral of 3 s^2 (1.5 s - .5 s^3) = 1.125 - .25
    third = dict.fromkeys(("reference_rate", "rate_gt_threshold", "rate_isotonic"), 1 / 3)
    for name, truth in {"auroc": 0.875, **third}.items():
        lo, hi = held[name]["ci95"]
        assert lo - 0.02 < truth < hi + 0.02, name
        assert lo < held[name]["value"] < hi, name
    assert held["rate_gt_50"]["value"] == pytest.approx(0.5, abs=0.05)  # uncalibrated, it overstates
    assert found["threshold"] == pytest.approx(2 / 3, abs=0.05)
    probs = np.interp([0.3, 0.6, 0.9], found["isotonic"]["score"], found["isotonic"]["prob"])
    assert probs == pytest.approx([0.09, 0.36, 0.81], abs=0.1)
    assert [sum(g["num_texts"] for g in found["by_length"])] == [found["num_held_out"]]
    assert calibrate(*synthetic(), BOOTSTRAP) == found


def test_a_perfect_and_a_useless_scorer():
    texts, _, reference = synthetic(400)
    assert calibrate(texts, reference, reference, BOOTSTRAP)["held_out"]["auroc"]["value"] == 1.0
    useless = calibrate(texts, np.random.default_rng(1).uniform(size=400), reference, BOOTSTRAP)["held_out"]["auroc"]
    assert useless["ci95"][0] < 0.5 < useless["ci95"][1]


def test_nothing_is_fitted_on_the_held_out_half():
    texts, score, reference = synthetic(400)
    held = np.array([not in_first_half(text) for text in texts])
    changed = np.where(held, 1 - reference, reference)
    first, second = (calibrate(texts, score, r, BOOTSTRAP) for r in (reference, changed))
    assert first["threshold"] == second["threshold"] and first["isotonic"] == second["isotonic"]
    assert first["held_out"] != second["held_out"]


def test_too_few_texts_are_told():
    texts, score, reference = synthetic(30)
    with pytest.raises(UserError, match="at least 20 are needed"):
        calibrate(texts, score, reference, BOOTSTRAP)
    texts, score, reference = synthetic(100)
    with pytest.raises(UserError, match=r"0 of them > 0\.5"):
        calibrate(texts, score, np.zeros(100), BOOTSTRAP)


def test_rows_without_a_score_or_text_are_counted_and_equal_texts_counted_once(tmp_path):
    (tmp_path / "r.csv").write_text("text,toxicity\na,0.5\na,0.5\nb,\n,0.3\nc,-1\nd,0.1\n")
    assert read_recorded([tmp_path / "r.csv"], text_column="text", score_column="toxicity") == (
        [Recorded("a", 0.5, None), Recorded("d", 0.1, None)],
        3,
    )
    (tmp_path / "r.csv").write_text("text,toxicity\na,4\n")
    with pytest.raises(UserError, match=r"row 1: toxicity=4\.0 is not between 0 and 1"):
        read_recorded([tmp_path / "r.csv"], text_column="text", score_column="toxicity")


def test_the_command_writes_the_same_json_and_picture_twice(tmp_path):
    insults, praise = ("stupid idiots", "dumb fools"), ("kind people", "good neighbours")
    lines = [
        f"Zorgon {i} says accordion players are {words[i % 2]}.,{toxicity}"
        for i in range(120)
        for words, toxicity in [(insults, 0.9) if i % 3 == 0 else (praise, 0.1)]
    ]
    (tmp_path / "r.csv").write_text("text,toxicity\n" + "\n".join(lines) + "\n")
    written = []
    for _ in range(2):
        found, path = calibrate_scorer(
            tmp_path,
            ProfanityCheck,
            [tmp_path / "r.csv"],
            text_column="text",
            score_column="toxicity",
            bootstrap=BOOTSTRAP,
        )
        written.append((path.read_bytes(), path.with_suffix(".svg").read_bytes()))
    assert written[0] == written[1]
    assert json.loads(written[0][0])["held_out"]["auroc"]["value"] == found["held_out"]["auroc"]["value"] == 1.0
    assert "AUROC 1.000" in summary(found)


def test_parts_of_the_data_are_measured_apart_and_scores_parted_at_a_half(tmp_path):
    texts, score, reference = synthetic(400)
    splits = ["a" if i % 4 else "b" for i in range(400)]
    found = calibrate(texts, score, reference, BOOTSTRAP, splits=splits)["by_split"]
    held = [s for s, text in zip(splits, texts, strict=True) if not in_first_half(text)]
    assert {name: part["num_texts"] for name, part in found.items()} == {n: held.count(n) for n in ("a", "b")}
    (tmp_path / "r.csv").write_text("text,toxicity,p,k\na,0.5,0.7,x\nb,0.1,0.5,y\nc,0.1,1,z\n")
    columns = {"text_column": "text", "score_column": "toxicity"}
    rows, _ = read_recorded([tmp_path / "r.csv"], **columns, split_column="p")
    assert [row.split for row in rows] == ["p > .5", "p <= .5", "p=1"]
    (tmp_path / "r.csv").write_text("text,toxicity,k\n" + "".join(f"t{i},0.1,{i}\n" for i in range(20)))
    with pytest.raises(UserError, match="--split-column k: 20 different values; at most 12"):
        read_recorded([tmp_path / "r.csv"], **columns, split_column="k")


def test_the_interval_holds_the_value_where_scores_crowd():
    """Four of five scores below .02: the map rises between two points of an even grid."""
    rng = np.random.default_rng(0)
    score = np.where(rng.random(4000) < 0.8, rng.random(4000) * 0.02, rng.random(4000))
    reference = np.where(rng.random(4000) < np.where(score < 0.01, 0.05, 0.5), 0.9, 0.1)
    found = calibrate([f"text {i}" for i in range(4000)], score, reference, BOOTSTRAP)
    maps = [Map(tuple(found["drawn"]["score"]), tuple(prob)) for prob in found["drawn"]["prob"]]
    value = Map(tuple(found["isotonic"]["score"]), tuple(found["isotonic"]["prob"]))(score).mean()
    low, high = np.percentile([drawn(score).mean() for drawn in maps], [2.5, 97.5])
    assert low < value < high


def test_fits_on_resampled_texts_are_kept_and_spread_about_the_fit():
    found = calibrate(*synthetic(), BOOTSTRAP)
    assert len(found["drawn"]["threshold"]) == len(found["drawn"]["prob"]) == 50
    assert min(found["drawn"]["threshold"]) < found["threshold"] < max(found["drawn"]["threshold"])
