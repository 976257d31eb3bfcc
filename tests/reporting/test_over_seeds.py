"""Model effects over all seeds of a method, and of one method minus another: by hand and by simulation."""

import numpy as np
import pytest

from detoxlens.evaluation.effects import EFFECTS, StepTable
from detoxlens.reporting.over_seeds import difference_json_of_methods, method_json, together
from tests.reporting.test_curves import CONFIG

EFFECT = {"model_effect": dict(enumerate(EFFECTS["model_effect"]))}
PROMPTS = range(40)


def seed(effect: float, prompts=PROMPTS, noise: np.random.Generator | None = None, hard=0.0) -> dict[int, StepTable]:
    """The four tables of a seed of 2 steps whose model effect is `effect`; the text has 5 bits of its own."""
    size = (len(prompts), 2)
    levels = (0.0, 5.0, effect, 5.0 + effect)
    return {
        i: StepTable(
            prompts=list(prompts),
            values=np.full(size, level) + (hard if i > 1 else 0) + (noise.normal(size=size) if noise else 0),
        )
        for i, level in enumerate(levels)
    }


def test_the_effect_of_a_method_is_the_mean_over_its_seeds_with_their_spread():
    # .1, .2, .3: mean .2, SD .1; all prompts alike: t of 2 degrees of freedom, 4.303 * .1 / sqrt 3 = .248
    tables = {"ft": seed(0.1), "ft-1": seed(0.2), "ft-2": seed(0.3)}
    found = method_json(together(tables, list(tables), 2, CONFIG), list(tables), EFFECT)
    assert found["model_effect"]["value"] == pytest.approx(0.2)
    assert found["model_effect"]["sd_between_seeds"] == pytest.approx(0.1)
    assert found["model_effect"]["ci95"] == pytest.approx([0.2 - 0.2484, 0.2 + 0.2484], abs=1e-3)
    assert (found["num_prompts"], found["num_steps"], found["reason"]) == (40, 2, None)


def test_of_prompts_those_count_that_every_seed_has():
    tables = {"ft": seed(0.1, range(40)), "ft-1": seed(0.3, range(10, 50))}
    assert method_json(together(tables, list(tables), 2, CONFIG), list(tables), EFFECT)["num_prompts"] == 30


def test_one_method_minus_another_has_the_seeds_of_both():
    # (.1 + .3) / 2 - (.5 + .5) / 2 = -.3; S^2 / m = .02 / 2 and 0: 1 degree of freedom, 12.71 * .1 = 1.27
    tables = {"ft": seed(0.1), "ft-1": seed(0.3), "rl": seed(0.5), "rl-1": seed(0.5)}
    sides = ["ft", "ft-1"], ["rl", "rl-1"]
    found = difference_json_of_methods(together(tables, list(tables), 2, CONFIG), *sides, EFFECT)["model_effect"]
    assert found["value"] == pytest.approx(-0.3)
    assert found["ci95"] == pytest.approx([-0.3 - 1.2706, -0.3 + 1.2706], abs=1e-3)
    assert found["p_value"] == pytest.approx(2 * np.arctan(1 / 3) / np.pi)  # t of 1 degree of freedom, Cauchy: at 3


def test_one_training_against_another_is_drawn_by_prompt():
    rng = np.random.default_rng(0)
    tables = {"ft": seed(0.3, noise=rng), "rl": seed(-0.3, noise=rng)}
    both = together(tables, list(tables), 2, CONFIG)
    found = difference_json_of_methods(both, ["ft"], ["rl"], EFFECT)["model_effect"]
    assert found["ci95"][0] < 0.6 < found["ci95"][1] and found["ci95"][0] > 0
    assert found["num_prompts"] == 40


def test_without_enough_the_cell_is_empty_and_says_why():
    none = together({"ft": seed(0.1)}, ["ft", "ft-1"], 2, CONFIG)
    assert method_json(none, ["ft", "ft-1"], EFFECT) == {
        "model_effect": None,
        "num_steps": 0,
        "num_prompts": 0,
        "reason": "`ft-1`: too little was attributed to compare",
    }
    apart = together({"ft": seed(0.1, range(3)), "ft-1": seed(0.1, range(2, 5))}, ["ft", "ft-1"], 2, CONFIG)
    why = difference_json_of_methods(apart, ["ft"], ["ft-1"], EFFECT)["reason"]
    assert why.startswith("1 prompts are shared by `ft`, `ft-1`: fewer than report.min_sequences_per_step=2")


@pytest.mark.parametrize("seed_sd", [0.0, 0.15])
def test_the_interval_of_three_seeds_holds_the_truth_about_95_times_in_100(seed_sd):
    """Prompts differ in how hard they are for the method, seeds by `seed_sd`, sampling by .11 of a seed's mean."""
    rng = np.random.default_rng(1)
    held, names = 0, ["ft", "ft-1", "ft-2"]
    for _ in range(200):
        hard = 0.5 * rng.normal(size=(40, 1))
        tables = {name: seed(0.2 + seed_sd * rng.normal(), noise=rng, hard=hard) for name in names}
        lo, hi = method_json(together(tables, names, 2, CONFIG), names, EFFECT)["model_effect"]["ci95"]
        held += lo <= 0.2 <= hi
    assert 0.90 <= held / 200 <= 0.99
