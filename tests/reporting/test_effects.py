"""Model and text effects in metrics.json, from attributions of models whose dependence is known by construction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detoxlens.attribution import attribute
from detoxlens.attribution.reliance import prompt_reliance
from detoxlens.common.records import Completion
from detoxlens.common.seeding import numpy_rng
from detoxlens.reporting.effects import ON_BASE_TEXT, effects
from detoxlens.reporting.traces import trace_of
from tests.attribution.mixer import ANSWER_IDS, PROMPT_IDS, Mixer
from tests.reporting.test_curves import CONFIG, completion, tables, trace

NUM_PROMPTS = 40
ENOUGH = CONFIG.model_copy(update={"min_sequences_per_step": 30})


def texts(source: str, *, longest: int) -> list[Completion]:
    """Six prompt tokens, two of them the template's; answers of 3 to `longest` tokens."""
    rng = numpy_rng(0, source)
    rows = []
    for number in range(NUM_PROMPTS):
        ids = numpy_rng(0, "prompt", number).choice(list(PROMPT_IDS), 6)
        rows.append(
            dataclasses.replace(
                completion(f"p{number:02d}"),
                prompt_ids=tuple(ids.tolist()),
                prompt_token_is_template=(True, False, False, False, False, True),
                completion_ids=tuple(rng.choice(list(ANSWER_IDS), rng.integers(3, longest + 1)).tolist()),
            )
        )
    return rows


def read(model, reader: str, source: str, rows: list[Completion]):
    """Traces of `model` reading these completions."""
    prompts, completions = [r.prompt_ids for r in rows], [r.completion_ids for r in rows]
    found = attribute(model, prompt_ids=prompts, completion_ids=completions)
    reliance = prompt_reliance(
        model, prompt_ids=prompts, completion_ids=completions, is_template=[r.prompt_token_is_template for r in rows]
    )
    traces = []
    for row, result, of in zip(rows, found, reliance, strict=True):
        result = dataclasses.replace(result, prompt_kl_bits=of.kl_bits, prompt_gain_bits=of.gain_bits)
        pieces = {
            "prompt_pieces": [f" p{i}" for i in row.prompt_ids],
            "completion_pieces": [f" c{i}" for i in row.completion_ids],
        }
        traces.append(trace_of(result.record(row, reader=reader, text_source=source, **pieces)))
    return traces


def study_of(base: Mixer, variant: Mixer, *, longest: int = 12):
    it, ft = texts("it", longest=12), texts("ft", longest=longest)
    toxicity = {row.prompt_id: 0.1 for row in it}
    own = read(variant, "ft", "ft", ft) + read(variant, "ft", "it", it) + read(base, "it", "ft", ft)
    return {"it": tables("it", read(base, "it", "it", it), toxicity), "ft": tables("ft", own, toxicity)}


def by_hand(prompt_size: float, num_steps: int, *, num_prompt: int) -> float:
    """The mean over steps of N a / (N a + t - 1)."""
    t = np.arange(num_steps)
    return float((num_prompt * prompt_size / (num_prompt * prompt_size + t)).mean())


@pytest.mark.parametrize(("scope", "num_prompt"), [("prompt", 6), ("user", 4), ("no_first", 5)])
def test_a_planted_dependence_is_found_and_is_all_the_models(scope, num_prompt):
    found = effects(study_of(Mixer(prompt_size=1.0), Mixer(prompt_size=2.0), longest=24), ENOUGH)
    of = found["ft"][scope]["prompt_dependence"]
    base, variant = (by_hand(a, of["num_steps"], num_prompt=num_prompt) for a in (1.0, 2.0))
    assert of["num_steps"] > 3 and of["limited_by"] == "it"
    assert of["level"]["value"] == pytest.approx(variant, abs=1e-6)
    assert of["model_effect"]["value"] == pytest.approx(variant - base, abs=1e-6)
    assert of["model_effect"]["ci95"][0] > 0
    assert of["text_effect"]["value"] == pytest.approx(0, abs=1e-6)  # twice as long, and it does not matter
    assert found["it"][scope]["prompt_dependence"]["level"]["value"] == pytest.approx(base, abs=1e-6)
    excess = found["it"][scope]["prompt_dependence_excess_bits"]
    assert excess["level"]["value"] == pytest.approx(0, abs=1e-6)  # all tokens weigh alike


def test_a_planted_null_is_not_called_a_difference():
    """Other weights everywhere, the same sizes: not one attribution score depends on which model reads."""
    found = effects(study_of(Mixer(prompt_size=1.5, seed=1), Mixer(prompt_size=1.5, seed=2)), ENOUGH)
    for measure in ("prompt_dependence", "prompt_dependence_excess_bits", "prompt_entropy_bits"):
        of = found["ft"]["prompt"][measure]["model_effect"]
        assert of["value"] == pytest.approx(0, abs=1e-6)
        assert max(map(abs, of["ci95"])) < 1e-6
    assert found["ft"]["any_method"]["prompt_kl_bits"]["model_effect"]["value"] != 0  # they do predict differently


def test_the_method_free_measure_finds_the_planted_dependence_too():
    found = effects(study_of(Mixer(prompt_size=0.5), Mixer(prompt_size=2.0)), ENOUGH)
    assert found["ft"]["any_method"]["prompt_kl_bits"]["model_effect"]["ci95"][0] > 0


def test_model_and_text_effect_add_up_to_the_total():
    found = effects(study_of(Mixer(prompt_size=1.0), Mixer(prompt_size=2.0, seed=3)), ENOUGH)
    for measures in found["ft"].values():
        for of in measures.values():
            parts = of["model_effect"]["value"] + of["text_effect"]["value"]
            assert parts == pytest.approx(of["total"]["value"], abs=1e-12)


def four_cells(num_it: int = 3, num_ft: int = 3, **left_out):
    """Constant traces; `left_out` names cells that are not there, e.g. it_ft=True."""
    names = "abcdefgh"
    cells = {
        ("it", "it"): [trace(p, [1.0, 1.0]) for p in names[:num_it]],
        ("it", "ft"): [trace(p, [2.0, 2.0], "it", "ft") for p in names[:num_ft]],
        ("ft", "it"): [trace(p, [4.0, 4.0], "ft", "it") for p in names[:num_it]],
        ("ft", "ft"): [trace(p, [8.0, 8.0], "ft") for p in names[:num_ft]],
    }
    kept = {cell: of for cell, of in cells.items() if "_".join(cell) not in left_out}
    toxicity = dict.fromkeys(names, 0.1)
    return {
        "it": tables("it", kept.pop(("it", "it"), []), toxicity),
        "ft": tables("ft", [t for of in kept.values() for t in of], toxicity),
    }


def test_effects_by_hand_and_what_was_left_out():
    of = effects(four_cells(num_it=3, num_ft=4), CONFIG)["ft"]["prompt"]["prompt_entropy_bits"]
    assert (of["model_effect"]["value"], of["text_effect"]["value"], of["total"]["value"]) == (4.5, 2.5, 7)
    assert (of["num_prompts"], of["num_left_out"], of["reason"]) == (3, 1, None)  # `it` has no answer to d


def test_a_variant_without_its_partner_text_has_null_effects_and_a_reason():
    of = effects(four_cells(it_ft=True), CONFIG)
    cell = of["ft"]["prompt"]["prompt_entropy_bits"]
    assert cell["model_effect"] is cell["total"] is cell["level"] is None
    assert cell["reason"] == "no attribution of `it` reading `ft`"
    assert of["it"]["prompt"]["prompt_entropy_bits"]["level"]["value"] == 1  # base is not harmed


def test_on_bases_text_no_text_of_the_variant_need_be_read_by_base():
    of = effects(four_cells(it_ft=True), CONFIG, names=ON_BASE_TEXT)["ft"]["prompt"]["prompt_entropy_bits"]
    assert (of["model_effect_on_base_text"]["value"], of["total"]["value"], of["level"]["value"]) == (3, 7, 8)
    assert "model_effect" not in of and of["reason"] is None


def test_too_few_sequences_are_said_and_do_not_shorten_the_others():
    few = four_cells(num_ft=1)
    of = effects(few, CONFIG)
    cell = of["ft"]["prompt"]["prompt_entropy_bits"]
    assert cell["model_effect"] is None
    assert "fewer than 2 completions of `it` have a value at the first step when `it` reads" in cell["reason"]
    assert "1 prompts are in every combination" in cell["reason"]
    assert of["it"]["prompt"]["prompt_entropy_bits"]["num_steps"] == 2


def test_nothing_attributed_is_null_with_a_reason_everywhere():
    of = effects({"it": tables("it", [], {}), "ft": tables("ft", [], {})}, CONFIG)
    for variant in ("it", "ft"):
        cell = of[variant]["prompt"]["prompt_dependence"]
        assert cell["level"] is None and cell["reason"].startswith("no attribution of `it` reading `it`")


def test_without_a_template_there_is_no_method_free_measure():
    cell = effects(four_cells(), CONFIG)["ft"]["any_method"]["prompt_kl_bits"]
    assert cell["model_effect"] is None and "have a value at the first step" in cell["reason"]
