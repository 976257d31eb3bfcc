"""Where the attribution lies, and how far a variant's is from that of `it` on the same tokens: numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detoxlens.evaluation.stats import mean_ci
from detoxlens.params.report import Bootstrap
from detoxlens.reporting.study import DIVERGENCES, REGIONS, Trace


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
