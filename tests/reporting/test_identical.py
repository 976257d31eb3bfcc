"""Variants with the same answers have no intervals between them."""

from detoxlens.reporting.identical import mark_twins, without_intervals

DELTA = {"value": 0.0, "ci95": [-0.1, 0.1]}
NO_INTERVAL = {"value": 0.0, "ci95": None}


def test_differences_lose_their_interval_and_levels_keep_it():
    found = {
        "rate": DELTA,
        "p50": {"delta_vs_it": DELTA},
        "effects": {"model_effect_on_own_text": DELTA, "level": DELTA},
    }
    assert without_intervals(found) == {
        "rate": DELTA,
        "p50": {"delta_vs_it": NO_INTERVAL},
        "effects": {"model_effect_on_own_text": NO_INTERVAL, "level": DELTA},
    }


def test_pairs_of_twins_lose_it_too_and_others_do_not():
    variants = {
        "it": {},
        "ft": {"pairs": {"rl": {"toxicity": DELTA}, "grpo": {"toxicity": DELTA}}},
        "rl": {},
        "grpo": {},
    }
    found = mark_twins(variants, {"rl": "ft"})
    assert found["rl"] == {"identical_to": "ft"}
    assert found["ft"]["pairs"] == {"rl": {"toxicity": NO_INTERVAL}, "grpo": {"toxicity": DELTA}}
    both = mark_twins({"it": {}, "ft": {"pairs": {"rl": {"toxicity": DELTA}}}, "rl": {}}, {"ft": "it", "rl": "it"})
    assert both["ft"]["pairs"]["rl"]["toxicity"] == NO_INTERVAL
