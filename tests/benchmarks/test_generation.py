"""The sampling benchmark: the three ways give the same text where nothing is drawn, and ratios are of one round."""

import pytest

from benchmarks import generation
from benchmarks.generation import measure, table_of, ways_of
from detoxlens.models.loading import load_model
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.models import WeightsConfig
from tests.models.checkpoints import save_language_model

GREEDY = GenerationConfig(
    max_new_tokens=6,
    min_new_tokens=2,
    temperature=0,
    top_k=0,
    top_p=1.0,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=2,
)


def test_the_ways_generate_the_same_tokens_when_decoding_is_greedy(tmp_path):
    ref = save_language_model(tmp_path / "m")
    model = load_model(tmp_path, ref, WeightsConfig(), device="cpu")
    prompts = [(5, 9, 7), (12,), (8, 8, 30, 41), (17, 3)]
    ways = ways_of(model, GREEDY, eos_token_id=0, pad_token_id=1, batch_size=2)
    found = {name: way(prompts) for name, way in ways.items()}
    assert found["one by one"] == found["ours"] == found["fixed order"]
    assert all(2 < len(ids) <= 6 for ids in found["ours"])


def test_speedups_are_ratios_within_a_round(monkeypatch):
    seconds = {
        "ours": iter([1.0, 2.0, 1.0]),
        "one by one": iter([6.0, 24.0, 7.0]),
        "fixed order": iter([1.2, 2.4, 2.0]),
    }
    ways = {name: (lambda prompts, name=name: [(name,)] * len(prompts)) for name in seconds}

    def timed(work, device):
        generated = work()
        return next(seconds[generated[0][0]]), generated

    monkeypatch.setattr(generation, "timed", timed)
    ours, loop, fixed = measure(ways, [(1,)] * 4, num_repetitions=3, device="cpu")
    assert (ours.seconds, ours.tokens_per_second, ours.speedup_of_ours) == (1.0, 4.0, None)
    assert (loop.speedup_of_ours, loop.speedup_range) == (7.0, (6.0, 12.0))
    assert fixed.speedup_of_ours == pytest.approx(1.2) and fixed.speedup_range == pytest.approx((1.2, 2.0))
    assert table_of([ours, loop, fixed], title="t").row_count == 3
