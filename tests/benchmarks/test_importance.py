"""From looks to seed-paired differences, by hand."""

import json
from pathlib import Path

import pytest

from benchmarks.importance.arms import PLACEBO, PLAIN, arms_of
from benchmarks.importance.effects import at_kl, common_kl, effects, mean_along, paired, steps_to_half
from benchmarks.importance.ppo import looks_of
from benchmarks.importance.records import is_done, read_runs, write_runs
from benchmarks.importance.tables import tables_of
from detoxlens.common.errors import UserError
from detoxlens.params.regularizer import RegularizerConfig

LOOKS = [
    {"step": step, "toxicity": toxicity, "kl_nats_per_sequence": kl}
    for step, toxicity, kl in ((0, 0.8, 0.0), (4, 0.6, 1.0), (8, 0.2, 3.0))
]


def test_steps_to_half_lie_between_two_looks():  # .6 -> .2 over 4 steps; .4 is half way
    assert steps_to_half(LOOKS) == pytest.approx(6.0)
    assert steps_to_half(LOOKS[:2]) is None


def test_the_mean_along_training_is_the_area_over_the_steps():  # ((.8 + .6) / 2 * 4 + (.6 + .2) / 2 * 4) / 8
    assert mean_along(LOOKS, "toxicity") == pytest.approx(0.55)


def test_toxicity_at_a_kl_lies_between_two_looks():  # 2 of 1 .. 3 is half way from .6 to .2
    assert at_kl(LOOKS, 2.0, "toxicity") == pytest.approx(0.4)
    assert at_kl(LOOKS, 4.0, "toxicity") is None


def test_the_common_kl_is_reached_by_every_training():
    assert common_kl([LOOKS, LOOKS[:2]]) == 1.0


def test_differences_are_paired_by_seed_with_students_interval():
    # differences 1 and 3: mean 2, standard deviation sqrt 2, t(1) = 12.706
    found = paired({0: 2.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 2.0, 2: None})
    assert found["value"] == pytest.approx(2.0) and found["num_seeds"] == 2
    assert found["p"] == pytest.approx(0.295, abs=1e-3)  # t = 2 / 1, one degree of freedom: 1 - 2 arctan(2) / pi
    assert found["hi"] - 2 == pytest.approx(12.706, abs=1e-3) and found["lo"] + found["hi"] == pytest.approx(4.0)
    assert paired({0: 1.0}, {0: 0.0})["value"] is None
    assert paired({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0})["p"] == 1.0  # no spread, no difference


def test_arms_differ_in_sign_and_columns_alone():
    arms = {name: RegularizerConfig(**setting) for name, setting in arms_of("toxic_share", 2.0, 4).items()}
    assert {name: (arm.weight, arm.columns) for name, arm in arms.items()} == {
        PLAIN: (0.0, "own"),
        "lower": (2.0, "own"),
        "raise": (-2.0, "own"),
        PLACEBO: (2.0, "shuffled"),
    }
    assert {(arm.kind, arm.num_examples) for arm in arms.values()} == {("toxic_share", 4)}


def test_ppos_validations_are_its_looks():
    row = {"ppo/val_toxicity": 0.5, "ppo/val_kl_nats_per_sequence": 1.0}
    row |= {"ppo/val_base_perplexity": 2.0, "ppo/val_empty_share": 0.0, "ppo/reward": 0.9}
    assert looks_of([{"step": 1, "ppo/reward": 0.9}, {"step": 2} | row]) == [
        {"step": 2, "toxicity": 0.5, "kl_nats_per_sequence": 1.0, "base_perplexity": 2.0, "empty_share": 0.0}
    ]


def training(seed: int, *, kind: str = "toxic_share", weight: float, drop: float, quantity: float, **more) -> dict:
    """Two looks, 4 steps apart: the toxicity falls from .8 by `drop`, the KL rises to 1."""
    looks = [
        {"step": step, "toxicity": t, "kl_nats_per_sequence": kl, "base_perplexity": 2.0, "empty_share": 0.0}
        for step, t, kl in ((0, 0.8, 0.0), (4, 0.8 - drop, 1.0))
    ]
    regularizer = {"kind": kind, "num_examples": 4, "weight": weight} | more
    return {"regularizer": regularizer, "seed": seed, "looks": looks, "quantity": [0.9, quantity, quantity]}


def test_arms_are_compared_with_the_plain_training_of_the_same_seed():
    runs = [
        training(0, kind="attention_entropy", weight=0.0, drop=0.6, quantity=0.5),
        training(1, kind="attention_entropy", weight=0.0, drop=0.4, quantity=0.5),
        training(0, weight=1.0, drop=0.3, quantity=0.2),
        training(1, weight=1.0, drop=0.3, quantity=0.2),
        training(0, weight=-1.0, drop=0.3, quantity=0.5),
        training(0, weight=1.0, drop=0.1, quantity=0.1, columns="shuffled"),
        training(0, weight=0.3, drop=0.6, quantity=0.1),
    ]
    found = effects(runs)
    assert found.keys() == {"toxic_share, weight 0.3", "toxic_share, weight 1"}
    ours = found["toxic_share, weight 1"]
    assert ours["num_seeds"] == {PLAIN: 2, "lower": 2, "raise": 1, PLACEBO: 1}
    # toxicity at the end .5, .5 against .2, .4
    assert ours["differences"]["lower - plain"]["toxicity_at_end"]["value"] == pytest.approx(0.2)
    assert ours["differences"]["raise - plain"]["toxicity_at_end"]["num_seeds"] == 1
    assert ours["never_half"] == {PLAIN: 0, "lower": 2, "raise": 1, PLACEBO: 1}
    assert ours["means"]["lower"]["quantity_at_end"] == pytest.approx(0.2)
    assert ours["means"][PLAIN]["quantity_at_end"] is None  # it measured another quantity
    assert ours["means"][PLACEBO]["quantity_at_end"] is None  # that of other columns


def test_a_training_is_done_once_and_the_plain_one_for_all_kinds():
    runs = [training(0, weight=0.0, drop=0, quantity=0), training(0, weight=1.0, drop=0, quantity=0)]
    arms = arms_of("toxic_share", 1.0, 4)
    assert [is_done(runs, arms[arm], 0) for arm in (PLAIN, "lower", "raise", PLACEBO)] == [True, True, False, False]
    others = arms_of("attention_entropy", 1.0, 4)
    assert is_done(runs, others[PLAIN], 0) and not is_done(runs, others["lower"], 0)
    assert not is_done(runs, arms[PLAIN], 1)


def test_trainings_of_another_method_stay_and_those_of_another_setting_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.importance.records.hardware", dict)
    first = training(0, weight=0.0, drop=0.123456, quantity=0)
    for method in ("sft", "ppo"):
        write_runs(tmp_path, method, {"num_steps": 4}, [first])
    (kept,) = read_runs(tmp_path, "sft", {"num_steps": 4})
    assert kept["looks"][1]["toxicity"] == 0.67654  # five digits
    with pytest.raises(UserError, match=r"1 trainings of ppo with .*: 4}; asked for is .*: 8}"):
        read_runs(tmp_path, "ppo", {"num_steps": 8})
    assert read_runs(tmp_path / "elsewhere", "ppo", {"num_steps": 8}) == []


def test_tables_are_bold_where_a_difference_outlives_holms_correction():
    runs = [training(s, weight=0.0, drop=0.6, quantity=0.5) for s in range(3)]
    runs += [training(s, weight=0.3, drop=0.3 + s / 500, quantity=0.2) for s in range(3)]
    runs += [training(s, weight=-0.3, drop=0.5, quantity=0.2) for s in range(2)]
    runs += [training(s, weight=0.3, drop=0.5, quantity=0.2, columns="shuffled") for s in range(2)]
    lines = list(tables_of({"ppo": {"effects": effects(runs)}}))
    assert lines[0] == "ppo, toxic_share, weight 0.3:"
    (plain,) = (line for line in lines if line.startswith("| plain (weight 0)"))
    # half of .8 after 4 * .4 / .6 steps; mean of .8 and .2
    assert plain == "| plain (weight 0) | 3 | .200 | .500 | 2.7 steps, 3 of 3 | .200 | 1.00 | 2.00 | .500 |"
    (lowered,) = (line for line in lines if line.startswith("| lowered - plain"))
    # .6 - .302 = .298 higher at the end, half of it on average; se .002 / sqrt 3, times t(2) = 4.303
    assert lowered.startswith("| lowered - plain | **+.298** (+.293 to +.303) | **+.149** (+.147 to +.151) |")
    assert not list(tables_of({"sft": {"effects": effects(runs[:-1])}}))  # one placebo alone


def test_the_documents_tables_are_those_of_the_results():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "importance.md").read_text(encoding="utf-8")
    results = json.loads((root / "benchmarks" / "results" / "importance.json").read_text(encoding="utf-8"))
    missing = [line for line in tables_of(results) if line.startswith("|") and line not in page.splitlines()]
    assert not missing
