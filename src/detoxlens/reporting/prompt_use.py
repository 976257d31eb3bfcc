"""Where the attribution lies, and how far a variant's is from that of `it` on the same tokens: numbers and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detoxlens.evaluation.stats import mean_ci
from detoxlens.params.report import Bootstrap
from detoxlens.reporting.study import DIVERGENCES, REGIONS, Trace
from detoxlens.reporting.tables import Table, estimate

HEADINGS = dict(zip(REGIONS, ("template", "user's text", "generated before"), strict=True))


def region_metrics(traces: Sequence[Trace], bootstrap: Bootstrap) -> dict[str, Any]:
    """Each region's share: mean over generated tokens, then over completions."""
    return {region: _mean(traces, [t.regions.get(region) for t in traces], bootstrap) for region in REGIONS}


def divergence_metrics(traces: Sequence[Trace], bootstrap: Bootstrap) -> dict[str, Any]:
    """Divergences from `it`, in bits: mean over generated tokens, then over completions.

    KL is infinite where a token of the completion counts for nothing in `it`; such completions are left out of its mean
    and counted.
    """
    values = {name: [t.divergence.get(name) for t in traces] for name in DIVERGENCES}
    infinite = [v is not None and bool(np.isinf(v).any()) for v in values["kl"]]
    values["kl"] = [None if bad else v for bad, v in zip(infinite, values["kl"], strict=True)]
    found = {name: _mean(traces, of, bootstrap) for name, of in values.items()}
    num_sequences = sum(v is not None for v in values["jensen_shannon"])
    return found | {"num_sequences": num_sequences, "num_infinite_kl": sum(infinite)}


def _mean(traces: Sequence[Trace], values: Sequence[np.ndarray | None], bootstrap: Bootstrap) -> dict[str, Any] | None:
    """{value, ci95} over the traces that have values."""
    means = [float("nan") if of is None or not len(of) else float(of.mean()) for of in values]
    found = mean_ci([t.key[0] for t in traces], means, bootstrap)
    return None if found is None else {"value": found.value, "ci95": list(found.ci95) if found.ci95 else None}


def region_table(metrics: Mapping[str, Any]) -> Table:
    """Where each variant's attribution lies."""
    return Table(
        title="Where the attribution lies",
        caption="Share of the attribution on the chat template, on the user's text and on what the model has generated "
        "before; the first two make up the prompt dependence when no token is masked. Means over generated tokens, "
        "then over completions, with 95 % intervals.",
        header=("model", "variant", *HEADINGS.values()),
        rows=tuple(
            (model, variant, *(estimate(found["attribution"]["region_share"][region], 3) for region in REGIONS))
            for model, variants in metrics.items()
            for variant, found in variants.items()
        ),
    )


def divergence_table(metrics: Mapping[str, Any]) -> Table:
    """How differently each variant weighs the tokens of `it`'s completions."""
    rows = [
        (model, variant, estimate(d["kl"], 3), estimate(d["jensen_shannon"], 3), str(d["num_sequences"]))
        for model, variants in metrics.items()
        for variant, found in variants.items()
        if (d := found["attribution"].get("divergence_from_it_bits"))
    ]
    return Table(
        title="Use of the prompt: same text, different model",
        caption="Divergence of the variant's attribution from that of `it`, both reading the completions of `it`: over "
        "the prompt and what was generated before, in bits per generated token, with 95 % intervals. 0: the same "
        "weights; Jensen–Shannon is 1 where no token counts for both.",
        header=("model", "variant", "KL(variant | it)", "Jensen–Shannon", "completions"),
        rows=tuple(rows),
    )
