"""The blinded sheet: balance, nothing given away, and the measures against counts by hand and a simulation."""

import csv
import json
import re

import numpy as np
import pytest

from detoxlens.audit.command import make_sheet, read_sheet
from detoxlens.audit.sheet import Graded, Key, draw, folder_of, page, read_labels
from detoxlens.common.artifacts import Layout, read_json, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Score
from detoxlens.evaluation.agreement import Stratum, agreement, measures
from detoxlens.params.load import Params, read_yaml
from detoxlens.params.report import Bootstrap
from tests.root import ROOT

DRAWS = Bootstrap(num_resamples=400, seed=0)


def graded(variant, num_flagged, num_other):
    sides = [True] * num_flagged + [False] * num_other
    return [Graded(variant, side, f"p{n}", f"{variant} {n}") for n, side in enumerate(sides)]


def test_a_sheet_is_balanced_over_variants_and_sides_as_far_as_there_are_completions():
    chosen = draw(graded("it", 100, 300) + graded("ft", 5, 395), 80, seed=0)
    count = {(k.variant, k.flagged): sum(other == k for _, other in chosen) for _, k in chosen}
    assert count == {("it", True): 20, ("it", False): 20, ("ft", True): 5, ("ft", False): 35}
    assert {k.num_all for _, k in chosen} == {100, 300, 5, 395}
    assert chosen == draw(graded("it", 100, 300) + graded("ft", 5, 395), 80, seed=0)


def test_order_says_nothing_about_variant_or_side():
    chosen = draw(graded("it", 200, 200) + graded("ft", 200, 200), 400, seed=1)
    place = np.arange(len(chosen))
    for mark in ([k.variant == "it" for _, k in chosen], [k.flagged for _, k in chosen]):
        assert abs(np.corrcoef(place, mark)[0, 1]) < 4 / np.sqrt(len(chosen))


def test_measures_by_hand():
    # flagged: 40, .75 = 30 of them toxic; others: 60, .1 = 6. Agreement .84, by chance (40 * 36 + 60 * 64) / 100^2
    found = measures([(True, 40, 0.75), (False, 60, 0.1)])
    chance = (40 * 36 + 60 * 64) / 100**2
    expected = {"precision": 0.75, "recall": 30 / 36, "kappa": (0.84 - chance) / (1 - chance), "share_toxic": 0.36}
    assert found == pytest.approx(expected)


def test_kappa_of_a_full_sample_is_scikit_learns():
    from sklearn.metrics import cohen_kappa_score, precision_score, recall_score

    rng = np.random.default_rng(0)
    toxic = rng.random(300) < 0.3
    flagged = np.where(rng.random(300) < 0.8, toxic, ~toxic)
    sides = []
    for side in (True, False):
        labels = toxic[flagged == side]
        sides.append(Stratum(side, len(labels), tuple(labels.tolist())))
    found = {name: value["value"] for name, value in agreement(sides, DRAWS).items()}
    assert found["kappa"] == pytest.approx(cohen_kappa_score(toxic, flagged))
    assert found["precision"] == pytest.approx(precision_score(toxic, flagged))
    assert found["recall"] == pytest.approx(recall_score(toxic, flagged))


def test_a_sample_that_favours_one_side_is_weighted_back_and_its_intervals_hold():
    """1,000 completions, 100 flagged of which 70 toxic, 90 of the others: recall 70 / 160; 50 of each side labelled."""
    rng, inside, values = np.random.default_rng(0), 0, []
    flagged, others = np.arange(100) < 70, np.arange(900) < 90
    for _ in range(200):
        sides = [
            Stratum(side, len(all_), tuple(rng.choice(all_, 50, replace=False).tolist()))
            for side, all_ in ((True, flagged), (False, others))
        ]
        recall = agreement(sides, Bootstrap(num_resamples=200, seed=0))["recall"]
        values.append(recall["value"])
        inside += recall["ci95"][0] <= 70 / 160 <= recall["ci95"][1]
    assert np.mean(values) == pytest.approx(70 / 160, abs=0.04)
    assert inside >= 180


def test_nothing_toxic_anywhere_has_no_recall_and_no_kappa():
    found = agreement([Stratum(True, 0, ()), Stratum(False, 10, (False, False))], DRAWS)
    assert found["precision"] is found["recall"] is found["kappa"] is None and found["share_toxic"]["value"] == 0


@pytest.fixture
def project(tmp_path):
    """Outputs of two variants, every third completion graded toxic; and the params of the demo."""
    layout = Layout(tmp_path)
    for variant in ("it", "ft"):
        ids = [f"{n:016x}" for n in range(60)]
        completions = [
            Completion(
                prompt_id=i,
                sample_index=0,
                split="test",
                filters=("p50",),
                prompt=f"say {n}",
                prompt_ids=(1,),
                prompt_token_is_template=(True,),
                completion=f"{variant} says </script> {n}",
                completion_ids=(1,),
                finish_reason="eos",
                seed=0,
            )
            for n, i in enumerate(ids)
        ]
        scores = [
            Score(
                prompt_id=i,
                sample_index=0,
                scorer="profanity_check",
                scorer_version="v",
                label="offensive",
                activation="sigmoid",
                truncated=False,
                toxicity=0.9 if n % 3 == 0 else 0.1,
                status="ok",
                error="",
            )
            for n, i in enumerate(ids)
        ]
        write_rows(layout.completions("tiny-neox", variant), completions, Completion)
        write_rows(layout.scores("tiny-neox", variant), scores, Score)
    raw = read_yaml(ROOT / "params.yaml")
    raw["run"] |= {"models": ["tiny-neox"], "variants": ["it", "ft"], "rl_variants": []}
    return tmp_path, Params(raw)


def test_the_way_from_the_sheet_to_the_numbers(project):
    root, params = project
    assert "40 of 120 completions, without names" in make_sheet(root, params, "tiny-neox", num=40, seed=0)
    folder = folder_of(root, "tiny-neox")
    rows = list(csv.DictReader((folder / "sheet.csv").read_text().splitlines()))
    assert list(rows[0]) == ["id", "prompt", "completion", "toxic"] and len(rows) == 40
    key = {name: Key(**entry) for name, entry in read_json(folder / "key.json").items()}
    with (folder / "sheet.csv").open("w", newline="") as file:  # somebody agrees with the grader, but for ft's flagged
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"toxic": int(key[row["id"]] == Key("it", True, 20))} for row in rows)
    told = read_sheet(root, params, "tiny-neox", folder / "sheet.csv")
    assert "40 of 40 completions labelled" in told
    found = read_json(root / "reports/audit/tiny-neox.json")
    assert found["variants"]["it"]["precision"]["value"] == found["variants"]["it"]["kappa"]["value"] == 1
    assert found["variants"]["ft"]["precision"]["value"] == 0 and found["variants"]["ft"]["recall"] is None
    assert not re.search(r"says|say ", json.dumps(found))  # no text
    with pytest.raises(UserError, match="holds labels"):
        make_sheet(root, params, "tiny-neox", num=40, seed=1)


def test_the_page_holds_the_texts_and_not_the_key(project):
    root, params = project
    make_sheet(root, params, "tiny-neox", num=40, seed=0)
    html = (folder_of(root, "tiny-neox") / "sheet.html").read_text()
    items = json.loads(re.search(r"const items = (.*), labels", html)[1])
    assert len(items) == 40 and all(len(item) == 3 for item in items)
    assert html.count("</script>") == 1  # a completion cannot end the script
    assert "flagged" not in html and page([]) != html


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,toxic\n99,1\n", "id='99' is not on the sheet, whose ids are 1 to 2"),
        ("id,toxic\n1,yes\n", r"toxic='yes'; allowed are 1 \(toxic\), 0 \(not\) and nothing"),
        ("id,toxic\n1,1\n1,0\n", "labelled twice"),
        ("number,label\n1,1\n", "lacks the column id or toxic"),
    ],
)
def test_labels_that_cannot_be_read_are_named(tmp_path, text, message):
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "sheet.csv", {"1": Key("it", True, 1), "2": Key("it", False, 1)})


def test_what_is_missing_is_said(project):
    root, params = project
    with pytest.raises(UserError, match="draws the sheet that is labelled"):
        read_sheet(root, params, "tiny-neox", root / "sheet.csv")
    with pytest.raises(UserError, match=r"--num 6 is too few for 2 variants; at least 8"):
        make_sheet(root, params, "tiny-neox", num=6, seed=0)
    make_sheet(root, params, "tiny-neox", num=8, seed=0)
    with pytest.raises(UserError, match=r"none of ft's 2 completions that the grader calls toxic is labelled"):
        read_sheet(root, params, "tiny-neox", folder_of(root, "tiny-neox") / "sheet.csv")
