"""A difference in differences: the model effect on hostile prompts minus that on polite ones, planted by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detoxlens.reporting.attribution_tables import prompt_use_tables
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.other_prompts import other_prompts
from detoxlens.reporting.trust import trust
from tests.reporting.test_conclusions import ABOUT
from tests.reporting.test_curves import CONFIG, completion, study, tables, trace

HOSTILE, POLITE = [f"h{i:02d}" for i in range(40)], [f"p{i:02d}" for i in range(30)]
ENOUGH = CONFIG.model_copy(update={"min_sequences_per_step": 30})


def of_variant(variant: str, effects: dict[str, float], *, polite: list[str] = POLITE):
    """Reads each text with the bits of the prompt plus its own effect; own text is 1 bit higher than that of `it`."""
    rng = np.random.default_rng(0)
    traces = []
    for number, prompt in enumerate([*HOSTILE, *polite]):
        bits = rng.normal(3, 0.1, 4 + number % 3)
        added = effects["hostile" if prompt in HOSTILE else "polite"] + 0.01 * rng.normal()
        if variant == "it":
            traces.append(trace(prompt, bits))
            continue
        traces += [
            trace(prompt, bits + added, variant, "it"),
            trace(prompt, bits + 1 + added, variant),
            trace(prompt, bits + 1, "it", variant),
        ]
    found = tables(variant, traces, {})
    split = {prompt: ("p50",) if prompt in HOSTILE else ("polite",) for prompt in [*HOSTILE, *polite]}
    own = {"completion_ids": (ord(variant[0]),)}
    return dataclasses.replace(
        found, completions=[dataclasses.replace(completion(p, filters), **own) for p, filters in split.items()]
    )


def study_of(hostile: float, other: float, **more):
    variants = {v: of_variant(v, {"hostile": hostile, "polite": other}, **more) for v in ("it", "ft")}
    return dataclasses.replace(study(**variants), splits=("p50", "polite"))


def difference(of_study, config=ENOUGH):
    return other_prompts(of_study, of_study.models["m"], config)["ft"]["polite"]["prompt_entropy_bits"]


def test_an_effect_on_hostile_prompts_is_found_beyond_that_on_polite_ones():
    found = difference(study_of(0.5, 0.2))  # and a text effect of 1 bit, which is in none of them
    assert (found["num_prompts"], found["num_steps"], found["reason"]) == ([40, 30], 4, None)
    assert found["primary"]["value"] == pytest.approx(0.5, abs=0.01)
    assert found["other"]["value"] == pytest.approx(0.2, abs=0.01)
    assert found["difference"]["value"] == pytest.approx(found["primary"]["value"] - found["other"]["value"])
    assert found["difference"]["ci95"] == pytest.approx([0.295, 0.305], abs=0.01)


def test_a_training_that_changes_how_any_prompt_is_used_shows_no_difference():
    found = difference(study_of(0.5, 0.5))
    assert found["primary"]["ci95"][0] > 0.4 and found["other"]["ci95"][0] > 0.4
    assert found["difference"]["ci95"][0] < 0 < found["difference"]["ci95"][1]


def test_too_few_others_are_an_empty_cell_that_says_why():
    found = difference(study_of(0.5, 0.2, polite=POLITE[:29]))
    assert (found["difference"], found["num_steps"]) == (None, 0)
    assert found["reason"] == "29 prompts of the other split, fewer than report.min_sequences_per_step=30"


def test_prompts_of_both_splits_are_the_primary_ones_and_nothing_is_compared_where_no_others_are_attributed():
    both = study_of(0.5, 0.2)
    variants = {
        variant: dataclasses.replace(
            of, completions=[dataclasses.replace(c, filters=("p50", "polite")) for c in of.completions]
        )
        for variant, of in both.models["m"].items()
    }
    assert other_prompts(both, variants, ENOUGH) == {"ft": {}}


def test_metrics_table_and_trust_box_have_it_or_say_what_would_give_it():
    metrics = build_metrics(study_of(0.5, 0.2), ENOUGH, missing="exclude")
    title = "Is it an effect on these prompts, or on all?"
    (shown,) = (t for t in prompt_use_tables(metrics) if t.title == title)
    assert "polite" in shown.markdown() and "+0.3" in shown.markdown()
    box = {c.name: c for c in trust(metrics, primary="p50", about=ABOUT, groups={})}["Other prompts"]
    assert box.status == "note" and "m/ft +0.499 bits" in box.text and "on polite, difference +0.3" in box.text
    del metrics["m"]["ft"]["attribution"]["other_prompts"]
    assert title not in [t.title for t in prompt_use_tables(metrics)]
    box = {c.name: c for c in trust(metrics, primary="p50", about=ABOUT, groups={})}["Other prompts"]
    assert box.status == "absent" and "of the splits, `p50` alone was attributed" in box.text
