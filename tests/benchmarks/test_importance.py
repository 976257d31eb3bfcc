"""From looks to seed-paired differences, by hand."""

import pytest

from benchmarks.importance.arms import PLAIN, arms_of
from benchmarks.importance.effects import at_kl, common_kl, mean_along, paired, steps_to_half
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
    assert found["hi"] - 2 == pytest.approx(12.706, abs=1e-3) and found["lo"] + found["hi"] == pytest.approx(4.0)
    assert paired({0: 1.0}, {0: 0.0})["value"] is None


def test_arms_differ_in_sign_and_columns_alone():
    arms = {name: RegularizerConfig(**setting) for name, setting in arms_of(["toxic_share"], 2.0, 4).items()}
    assert {name: (arm.weight, arm.columns) for name, arm in arms.items()} == {
        PLAIN: (0.0, "own"),
        "toxic_share:lower": (2.0, "own"),
        "toxic_share:raise": (-2.0, "own"),
        "toxic_share:placebo": (2.0, "shuffled"),
    }
    assert {(arm.kind, arm.num_examples) for arm in arms.values()} == {("toxic_share", 4)}
