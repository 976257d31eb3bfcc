"""Do the attributions say what the model uses? The table of the tests in attribution/faithfulness.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.reporting.study import Study
from detoxlens.reporting.tables import Table, estimate, plain_number


def faithfulness_table(study: Study) -> Table | None:
    """Deletion and randomisation of every variant that was tested; None when none was."""
    rows = [
        (model, variant, str(f["num_sequences"]), *_deletion(f["comprehensiveness"]), *_deletion(f["sufficiency"]),
         _correlation(f["randomization"]))
        for model, variants in study.models.items()
        for variant, tables in variants.items()
        if (f := tables.faithfulness) and f.get("num_sequences")
    ]  # fmt: skip
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


def _deletion(found: Mapping[str, Any]) -> tuple[str, str]:
    difference = {"value": found["difference"], "ci95": found["ci95"]}
    return plain_number(found["attributed"], 3), estimate(difference, 3, signed=True)


def _correlation(found: Mapping[str, Any]) -> str:
    return estimate({"value": found["rank_correlation"], "ci95": found["ci95"]}, 2)
