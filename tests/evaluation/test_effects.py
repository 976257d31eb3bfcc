"""Position-standardised means and the 2x2: by hand, constructed cases, planted effects and planted nulls."""

from __future__ import annotations

import numpy as np
import pytest

from detoxlens.evaluation.effects import EFFECTS, StepTable, common_support, shared_prompts, step_means
from detoxlens.params.report import Bootstrap

BOOTSTRAP = Bootstrap(num_resamples=400, seed=0)


def table(rows: dict[str, list[float]], weights: list[float] | None = None) -> StepTable:
    width = max(map(len, rows.values()))
    values = np.array([row + [np.nan] * (width - len(row)) for row in rows.values()])
    return StepTable(prompts=list(rows), values=values, weights=None if weights is None else np.array(weights))


def effects(*quad: StepTable, num_steps: int):
    means = step_means(quad, num_steps, BOOTSTRAP)
    return {name: means.contrast(weights) for name, weights in EFFECTS.items()}


def test_the_support_ends_where_the_first_table_has_too_few():
    short, long = table({"a": [1, 2, 3], "b": [1]}), table({"a": [1, 2], "b": [1, 2]})
    assert common_support({"short": short, "long": long}, 1).num_steps == 2
    assert common_support({"short": short, "long": long}, 2) == common_support({"short": short}, 2)
    assert common_support({"short": short, "long": long}, 2).limited_by == "short"
    assert common_support({"short": short}, 3).num_steps == 0
    assert common_support({"holes": table({"a": [np.nan, 2], "b": [1, 2]})}, 2).num_steps == 0


def test_a_standardised_mean_weighs_steps_alike_whoever_is_left():
    # Step 1: (1 + 3) / 2 = 2, step 2: 5 alone -> (2 + 5) / 2 = 3.5, not (1 + 5 + 3) / 3
    means = step_means([table({"a": [1, 5], "b": [3]})], 2, BOOTSTRAP)
    assert means.contrast([1]).value == 3.5


def test_rows_count_by_their_weights():
    means = step_means([table({"a": [1.0], "b": [4.0]}, [0.5, 1.5])], 1, BOOTSTRAP)
    assert means.contrast([1]).value == pytest.approx((0.5 * 1 + 1.5 * 4) / 2)


def test_the_effects_by_hand():
    # One step. Base on its text 1, on the variant's 2; the variant on the base's text 4, on its own 8.
    quad = [table({"a": [v]}) for v in (1.0, 2.0, 4.0, 8.0)]
    found = {name: of.value for name, of in effects(*quad, num_steps=1).items()}
    assert found == {
        "level": 8,
        "model_effect": 4.5,  # (3 + 6) / 2
        "model_effect_on_base_text": 3,
        "model_effect_on_own_text": 6,
        "text_effect": 2.5,  # (1 + 4) / 2
        "text_effect_read_by_base": 1,
        "text_effect_read_by_variant": 4,
        "total": 7,
    }


def test_model_and_text_effect_add_up_to_the_total_in_every_draw():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 40)
    quad = [table({f"p{i}": rng.normal(size=n).tolist() for i, n in enumerate(lengths)}) for _ in range(4)]
    means = step_means(quad, 3, BOOTSTRAP)
    drawn = {name: np.einsum("t,rts->r", np.array(w), means.draws) for name, w in EFFECTS.items()}
    assert drawn["model_effect"] + drawn["text_effect"] == pytest.approx(drawn["total"])
    found = {name: means.contrast(w).value for name, w in EFFECTS.items()}
    assert found["model_effect"] + found["text_effect"] == pytest.approx(found["total"])


def simulated(rng, *, model: float, text: float, num: int = 60, longer: float = 1.0):
    """A 2x2 with planted effects: values fall along a completion, prompts differ, the variant's texts are longer."""
    of_prompt = rng.normal(0, 0.5, num)
    lengths = {"base": rng.integers(4, 10, num), "own": (rng.integers(4, 10, num) * longer).astype(int)}
    quad = []
    for reader in (0.0, model):
        for source, shift in (("base", 0.0), ("own", text)):
            rows = {
                f"p{i}": (-0.2 * np.arange(n) + of_prompt[i] + reader + shift + rng.normal(0, 0.2, n)).tolist()
                for i, n in enumerate(lengths[source])
            }
            quad.append(table(rows))
    return quad


def covers(estimate, value: float) -> bool:
    return estimate.ci95[0] <= value <= estimate.ci95[1]


def test_where_all_of_the_difference_is_text_none_of_it_is_the_model():
    quad = simulated(np.random.default_rng(0), model=0.0, text=0.5)
    found = effects(*quad, num_steps=common_support(dict(enumerate(quad)), 20).num_steps)
    assert covers(found["model_effect"], 0.0) and abs(found["model_effect"].value) < 0.05
    assert covers(found["text_effect"], 0.5) and found["text_effect"].ci95[0] > 0.3


def test_where_all_of_the_difference_is_the_model_none_of_it_is_text():
    quad = simulated(np.random.default_rng(1), model=0.5, text=0.0)
    found = effects(*quad, num_steps=common_support(dict(enumerate(quad)), 20).num_steps)
    assert covers(found["model_effect"], 0.5) and found["model_effect"].ci95[0] > 0.4
    assert covers(found["text_effect"], 0.0) and abs(found["text_effect"].value) < 0.1


def test_longer_texts_alone_move_the_plain_mean_and_not_the_standardised_one():
    quad = simulated(np.random.default_rng(2), model=0.0, text=0.0, longer=2.0)
    base, own = (np.nanmean(np.nanmean(quad[i].values, axis=1)) for i in (0, 3))
    assert own - base < -0.4  # values fall along a completion
    found = effects(*quad, num_steps=common_support(dict(enumerate(quad)), 20).num_steps)
    assert covers(found["total"], 0.0) and covers(found["model_effect"], 0.0)


def test_of_two_hundred_planted_nulls_about_five_percent_are_called_differences():
    called = 0
    for seed in range(200):
        quad = simulated(np.random.default_rng(seed), model=0.0, text=0.0, num=40)
        found = effects(*quad, num_steps=4)["model_effect"]
        called += not covers(found, 0.0)
    assert called <= 200 * 0.05 + 2.5 * np.sqrt(200 * 0.05 * 0.95)  # 5 % and its noise: 17 of 200


def test_pairs_are_the_prompts_that_every_table_has():
    tables = [table({"a": [1.0], "b": [2.0]}), table({"b": [1.0], "c": [2.0]}), table({"b": [1.0], "a": [np.nan]})]
    assert shared_prompts(tables) == {"b"}
    assert tables[0].of({"b"}).prompts == ["b"]


def test_two_groups_need_not_share_prompts():
    toxic, other = table({"a": [1.0], "b": [3.0]}), table({"c": [5.0], "d": [6.0], "e": [7.0]})
    means = step_means([toxic, other], 1, BOOTSTRAP)
    assert means.contrast((1, -1)).value == 2 - 6
    assert means.num_prompts == 5


def test_no_step_or_a_step_without_a_value_gives_nothing():
    assert step_means([table({"a": [1.0]})], 0, BOOTSTRAP) is None
    assert step_means([table({"a": [1.0]}), table({"a": [np.nan]})], 1, BOOTSTRAP) is None
    assert step_means([StepTable(prompts=[], values=np.zeros((0, 0)))], 1, BOOTSTRAP) is None
    alone = step_means([table({"a": [1.0, 2.0]})], 2, BOOTSTRAP)
    assert alone.contrast([1]).ci95 is None  # one prompt says nothing about how much prompts differ
    assert np.isnan(alone.curve([1]).lo).all()


def test_a_curve_has_its_means_its_intervals_and_a_wider_band():
    rng = np.random.default_rng(0)
    means = step_means([table({f"p{i}": rng.normal(1, 1, 6).tolist() for i in range(50)})], 6, BOOTSTRAP)
    curve = means.curve([1])
    assert (curve.lo < curve.mean).all() and (curve.mean < curve.hi).all()
    assert ((curve.band_hi - curve.band_lo) > (curve.hi - curve.lo)).all()
