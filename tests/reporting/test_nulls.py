"""Studies in which nothing differs: "differences" are as rare as 95 % intervals promise. Planted ones are found.

Of 200 true nulls 10 are expected outside their interval, and more than 19 in one of 250 such tests (binomial).
"""

from __future__ import annotations

import numpy as np
import pytest

from detoxlens.evaluation.samples import Sample, difference
from detoxlens.params.report import Bootstrap
from detoxlens.reporting.checks import sign
from detoxlens.reporting.effects import effects
from detoxlens.reporting.wording import sign as sign_in_sentences
from tests.reporting.test_curves import CONFIG, tables, trace

NUM_STUDIES, MOST = 200, 19
PROMPTS = [f"p{i}" for i in range(60)]
ENOUGH = CONFIG.model_copy(update={"min_sequences_per_step": 30, "bootstrap": Bootstrap(num_resamples=400, seed=0)})


def study(rng: np.random.Generator, model_effect: float):
    """Both models on both texts: prompts differ, steps wander, the variant's own texts are twice as long."""
    traces = {"it": [], "ft": []}
    for prompt in PROMPTS:
        hard = rng.normal()
        for text, longest in (("it", 10), ("ft", 20)):
            width = int(rng.integers(6, longest + 1))
            words = 0.3 * np.cumsum(rng.normal(size=width))
            for reader in ("it", "ft"):
                bits = 3 + hard + words + 0.4 * rng.normal(size=width) + 0.3 * rng.normal()
                traces["it" if (reader, text) == ("it", "it") else "ft"].append(
                    trace(prompt, bits + model_effect * (reader == "ft"), reader, text)
                )
    return {name: tables(name, of, dict.fromkeys(PROMPTS, 0.1)) for name, of in traces.items()}


def found_in(model_effect: float, num: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    signs = []
    for _ in range(num):
        of = effects(study(rng, model_effect), ENOUGH, scopes=["prompt"], names=["model_effect"])
        effect = of["ft"]["prompt"]["prompt_entropy_bits"]["model_effect"]
        assert sign(effect) == sign_in_sentences(effect)
        signs.append(sign(effect))
    return signs


def test_200_nulls_give_few_model_effects_though_texts_differ_in_length():
    assert NUM_STUDIES - found_in(0.0, NUM_STUDIES, seed=0).count(0) <= MOST


def test_a_planted_model_effect_is_found_with_its_sign():
    """Of .15 bits; its standard error is sqrt(2 (.3 ** 2 + .4 ** 2 / 6) / 60 / 2) = .044: 60 prompts, two texts."""
    assert found_in(0.15, 40, seed=1).count(1) >= 36
    assert found_in(-0.15, 20, seed=2).count(-1) >= 18


@pytest.mark.parametrize("is_rate", [True, False])
def test_200_nulls_give_few_differences_between_variants(is_rate):
    rng, outside = np.random.default_rng(3), 0
    for _ in range(NUM_STUDIES):
        hard = rng.normal(size=200)
        pair = [hard + rng.normal(size=200) for _ in range(2)]
        samples = [Sample(range(200), (of > 1).astype(float) if is_rate else of, is_rate) for of in pair]
        lo, hi = difference(*samples, ENOUGH.bootstrap).ci95
        outside += not lo <= 0 <= hi
    assert outside <= MOST
