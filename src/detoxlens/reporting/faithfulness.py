"""Do the attributions say what the model uses? The tables of the tests in attribution/{faithfulness,precision}.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.reporting.study import Study
from detoxlens.reporting.tables import DASH, Table, estimate, plain_number


def faithfulness_table(study: Study) -> Table | None:
    """Deletion and randomisation of every variant that was tested; None when none was."""
    rows = [
        (
            model,
            variant,
            str(f["num_sequences"]),
            *_deletion(f["comprehensiveness"]),
            *_deletion(f["sufficiency"]),
            _correlation(f["randomization"]),
        )
        for model, variants in study.models.items()
        for variant, tables in variants.items()
        if (f := tables.faithfulness) and f.get("num_sequences")
    ]
    if not rows:
        return None
    return Table(
        title="Faithfulness of the attributions",
        caption="Drop in the generated token's probability when the top-attributed prompt tokens are deleted "
        "(comprehensiveness: high is good) or kept alone (sufficiency: low is good), minus the same for as many random "
        "tokens, with 95 % intervals over sequences. Rank correlation of the scores with those of the same network "
        "with shuffled weights: near 0 is good.",
        header=(
            "model",
            "variant",
            "sequences",
            "comprehensiveness",
            "against random",
            "sufficiency",
            "against random",
            "after shuffling",
        ),
        rows=tuple(rows),
    )


def precision_table(study: Study) -> Table | None:
    """How far scores in a short number format are from float32; None when every model was in float32."""
    rows = [
        (
            model,
            variant,
            p["dtype"],
            str(p["num_sequences"]),
            *_difference(p["score"])[:2],
            *_difference(p["prompt_entropy_bits"]),
            *_difference(p["token_prob"])[:1],
        )
        for model, variants in study.models.items()
        for variant, tables in variants.items()
        if (p := (tables.faithfulness or {}).get("precision"))
    ]
    if not rows:
        return None
    return Table(
        title="Precision of the attributions",
        caption="The same sequences attributed in float32 too: size of the difference in the scores and in the prompt "
        "entropy of each generated token, and the entropy's mean difference with its sign, by which the means above "
        "may be off; largest difference in the tokens' probabilities.",
        header=(
            "model",
            "variant",
            "dtype",
            "sequences",
            "score, max",
            "score, median",
            "entropy, bits: max",
            "median",
            "mean",
            "probability, max",
        ),
        rows=tuple(rows),
    )


def _difference(found: Mapping[str, float] | None) -> tuple[str, str, str]:
    """Largest, median and signed mean difference."""
    if found is None:
        return DASH, DASH, DASH
    return number(found["max"], 4), number(found["median"], 5), number(found["mean"], 5, signed=True)


def _deletion(found: Mapping[str, Any]) -> tuple[str, str]:
    difference = {"value": found["difference"], "ci95": found["ci95"]}
    return plain_number(found["attributed"], 3), estimate(difference, 3, signed=True)


def _correlation(found: Mapping[str, Any]) -> str:
    return estimate({"value": found["rank_correlation"], "ci95": found["ci95"]}, 2)
