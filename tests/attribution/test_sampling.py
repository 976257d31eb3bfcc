"""Which prompts are drawn, and how a balanced sample is weighted back."""

import numpy as np
import pytest

from detoxlens.attribution.sampling import draw, stratum_weights, toxic_prompts
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import load_params
from tests.root import ROOT

PROMPTS = [f"p{i:03d}" for i in range(200)]
TOXIC = set(PROMPTS[::10])  # a tenth


def test_a_draw_depends_on_the_seed_and_the_ids_alone():
    assert draw(PROMPTS, 20, seed=0) == draw(list(reversed(PROMPTS)), 20, seed=0)
    assert draw(PROMPTS, 20, seed=0) != draw(PROMPTS, 20, seed=1)
    assert set(draw(PROMPTS, 20, seed=0)) <= set(draw(PROMPTS, 30, seed=0))


@pytest.mark.parametrize(
    "num, toxic, others",
    [
        (20, 10, 10),
        (21, 11, 10),
        (60, 20, 40),  # there are but 20 toxic ones: others fill up
        (300, 20, 180),
    ],
)
def test_a_balanced_draw_is_half_toxic_as_far_as_there_are(num, toxic, others):
    drawn = draw(PROMPTS, num, seed=0, toxic=TOXIC)
    assert (len(TOXIC & set(drawn)), len(set(drawn) - TOXIC)) == (toxic, others)


def test_toxic_prompts_are_those_with_a_toxic_completion_among_the_attributed_ones():
    config = load_params(ROOT / "params.yaml").section("attribution", AttributionConfig)
    toxicities = [("a", 0, 0.2), ("a", 1, 0.9), ("b", 0, 0.66), ("c", 0, 0.7)]
    assert toxic_prompts(toxicities, config) == {"c"}  # .66 itself is not above .66
    assert toxic_prompts(toxicities, config.model_copy(update={"samples_per_prompt": 2})) == {"a", "c"}
    assert toxic_prompts(None, config) is None


def test_weights_by_hand():
    # population 2 of 10 toxic; drawn 2 and 2: (.2 / .5, .8 / .5)
    population = PROMPTS[:10]
    weights = stratum_weights(population, PROMPTS[:4], set(PROMPTS[:2]))
    assert weights == pytest.approx({"p000": 0.4, "p001": 0.4, "p002": 1.6, "p003": 1.6})


def test_a_weighted_mean_of_a_balanced_sample_is_right_on_average_and_a_plain_one_is_not():
    value = {p: (5.0 if p in TOXIC else 1.0) + (i % 7) / 7 for i, p in enumerate(PROMPTS)}
    truth = np.mean(list(value.values()))
    weighted, plain = [], []
    for seed in range(200):
        drawn = draw(PROMPTS, 20, seed=seed, toxic=TOXIC)
        weights = stratum_weights(PROMPTS, drawn, TOXIC)
        weighted.append(sum(weights[p] * value[p] for p in drawn) / sum(weights.values()))
        plain.append(np.mean([value[p] for p in drawn]))
    assert np.mean(weighted) == pytest.approx(truth, abs=0.03)
    assert np.mean(plain) - truth > 1
