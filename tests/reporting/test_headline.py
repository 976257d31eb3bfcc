"""One flat row of numbers per (model, variant), as DVC prints it."""

from detoxlens.reporting.headline import headline

FT = {
    "toxicity": {
        "p50": {"rate_gt_50": 0.05, "delta_vs_it": {"value": -0.5, "ci95": [-0.6, -0.4]}},
        "val": {"rate_gt_50": 0.07},
    },
    "attribution": {
        "scope": "user",
        "prompt_entropy_bits": {"value": 3.5, "ci95": [3.4, 3.6], "delta_vs_it": {"value": 0.1, "ci95": [0, 0.2]}},
        "prompt_dependence": {"value": 0.5, "ci95": None, "delta_vs_it": None},
        "effects": {
            "prompt": {"prompt_entropy_bits": {"model_effect": {"value": 0.9, "ci95": None}}},
            "user": {"prompt_entropy_bits": {"model_effect": {"value": 0.01, "ci95": [0.0, 0.02]}}},
        },
    },
    "fluency": {"perplexity": 2.0, "distinct_2": 0.2, "mean_length": 10.5, "num_distinct": 99},
}


def test_ten_numbers_without_a_level():
    assert headline(FT, primary="p50") == {
        "toxic": 0.05,
        "toxic_vs_base": -0.5,
        "toxic_val": 0.07,
        "entropy_bits_model_effect": 0.01,
        "dependence_bits_model_effect": None,
        "entropy_bits_own_text": 3.5,
        "dependence_own_text": 0.5,
        "perplexity": 2.0,
        "distinct_2": 0.2,
        "mean_length": 10.5,
    }


def test_what_was_not_measured_is_none():
    bare = {"toxicity": {}, "attribution": {"prompt_entropy_bits": None}, "fluency": FT["fluency"]}
    found = headline(bare, primary="p50")
    assert [k for k, v in found.items() if v is not None] == ["perplexity", "distinct_2", "mean_length"]
