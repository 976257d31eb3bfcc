"""The rise after the first tokens: by hand, planted, and on prompts that differ more than it."""

import numpy as np
import pytest

from detoxlens.evaluation.effects import EFFECTS, StepTable, step_means
from detoxlens.evaluation.rise import rises
from detoxlens.params.report import Bootstrap

BOOTSTRAP = Bootstrap(num_resamples=1000, seed=0)


def test_a_rise_is_steps_4_to_8_minus_steps_1_to_3_of_the_same_row():
    rows = [[1, 2, 3, 5, 5, 5, 5, 10, 99], [0] * 8 + [np.nan], [1, 1, 1, 3, 3] + [np.nan] * 4]
    found = rises(StepTable(prompts="abc", values=np.array(rows, dtype=float), weights=np.array([1, 2, 3])))
    assert found.values[:2, 0].tolist() == [6 - 2, 0]
    assert np.isnan(found.values[2, 0])  # ends before step 8
    assert (found.prompts, found.weights.tolist()) == ("abc", [1, 2, 3])


def test_a_table_that_ends_before_step_8_has_no_rise():
    assert np.isnan(rises(StepTable(prompts="a", values=np.ones((1, 7)))).values).all()


def test_what_prompts_differ_in_cancels_within_completions():
    # Prompts differ by 2 bits, the planted rise is .3 with noise .1 per step: its interval is .03 wide, not .5.
    rng = np.random.default_rng(0)
    rise = np.where(np.arange(10) < 3, 0.0, 0.3)
    values = 2 * rng.normal(size=(100, 1)) + rise + 0.1 * rng.normal(size=(100, 10))
    found = step_means([rises(StepTable(prompts=range(100), values=values))], 1, BOOTSTRAP).contrast((1,))
    assert found.value == pytest.approx(0.3, abs=0.03) and found.ci95[1] - found.ci95[0] < 0.05


def test_a_flatter_model_on_the_same_text_is_found_as_model_effect():
    rng = np.random.default_rng(1)
    step = np.arange(10) >= 3
    quad = [
        rises(
            StepTable(
                prompts=range(60),
                values=slope * step + text * rng.normal(size=(60, 1)) + 0.05 * rng.normal(size=(60, 10)),
            )
        )
        for slope in (0.4, 0.1)
        for text in (1.0, 2.0)
    ]
    means = step_means(quad, 1, BOOTSTRAP)
    found = {name: means.contrast(EFFECTS[name]) for name in ("model_effect", "text_effect")}
    assert found["model_effect"].value == pytest.approx(-0.3, abs=0.03)
    assert found["text_effect"].ci95[0] < 0 < found["text_effect"].ci95[1]
