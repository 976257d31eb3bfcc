"""The made-up study is what the stages read, and exponents are those of known laws."""

import json

import numpy as np
import pytest

from benchmarks.growth.fit import exponent, last_exponent
from benchmarks.growth.models import MIDDLE, Shape, cpu_seconds, shapes, work_of
from benchmarks.growth.study import NUM_SAMPLES, WORDS, completion_table, prompt_rows, score_table
from detoxlens.common.arrow import records
from detoxlens.common.records import Completion, Prompt, Score
from tests.root import ROOT


def test_the_exponent_is_that_of_the_law_and_the_last_one_forgets_what_a_start_costs():
    assert exponent({1: 3.0, 10: 30.0, 100: 300.0}) == pytest.approx(1)
    assert exponent({2: 4.0, 4: 16.0, 8: 64.0}) == pytest.approx(2)
    # 10 s + 1 ms per prompt: between 10,000 and 100,000 prompts log10(110 / 20) = .740
    cost = {100_000: 110.0, 1_000: 11.0, 10_000: 20.0}
    assert last_exponent(cost) == pytest.approx(np.log10(110 / 20)) and exponent(cost) < last_exponent(cost)


def test_prompts_are_lines_of_realtoxicityprompts():
    rows = list(prompt_rows(300, np.random.default_rng(0)))
    assert len({row["prompt"]["text"] for row in rows}) == 300
    assert json.loads(json.dumps(rows[0])).keys() == {"prompt", "continuation", "challenging"}
    assert 0.4 < np.mean([row["prompt"]["toxicity"] > 0.5 for row in rows]) < 0.6


def test_tables_are_those_of_generate_and_of_a_recorded_scorer():
    prompts = [
        Prompt(prompt_id=name, split="test", filters=("p50",), text="Bababa zorgons", toxicity=0.9) for name in "ab"
    ]
    completions = records(completion_table(prompts, np.random.default_rng(0)), Completion)
    scores = records(score_table(prompts, 0.3, np.random.default_rng(0)), Score)
    keys = [(name, i) for name in "ab" for i in range(NUM_SAMPLES)]
    assert (
        [(c.prompt_id, c.sample_index) for c in completions] == keys == [(s.prompt_id, s.sample_index) for s in scores]
    )
    for c in completions:  # a token per word, between 5 and 35 of them, and one bit of template per prompt token
        assert c.completion == " ".join(WORDS[i] for i in c.completion_ids) and 5 <= len(c.completion_ids) <= 35
        assert len(c.prompt_ids) == len(c.prompt_token_is_template) == 4
    assert all((s.toxicity is None) == (s.status == "failed") for s in scores)


def test_each_kind_of_work_runs_on_a_model_of_the_shape():
    work = work_of(ROOT, Shape(num_tokens=8, width=16, depth=1))
    (found,) = work["attribution"]()
    assert len(found.scores) == 4 and work["generation"]()[0].token_ids and work["fine-tuning step"]() is None
    assert cpu_seconds(work["fine-tuning step"], num_repetitions=2) > 0


def test_one_thing_varies_at_a_time_about_the_middle():
    for name, size, shape in shapes():
        others = {k for k in ("num_tokens", "width", "depth") if getattr(shape, k) != getattr(MIDDLE, k)}
        assert getattr(shape, name) == size and others <= {name}
