"""Attribution as a user meets it: means over a completion's tokens, then over completions, of each variant's own text.

Longer completions, other words and another model all move these numbers; what the model alone does is in `effects.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detoxlens.attribution.entropy import MEASURES, mean_over_steps
from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import StepTable, shared_prompts, step_means
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.study import Trace
from detoxlens.reporting.traces import REGIONS

Json = dict[str, Any]


def own_text(own: Sequence[Trace], it: Sequence[Trace] | None, config: ReportConfig, *, scope: str) -> Json:
    """Means of the measures, and how far they are from those of `it`.

    Args:
        own: the variant reading its own completions.
        it: `it` reading its own; None for `it` itself, which has no difference to itself.
        config: the bootstrap.
        scope: the headline's.
    """
    found: Json = {}
    for measure in MEASURES:
        ours = table(own, [t.values[scope][measure] for t in own])
        theirs = None if it is None else table(it, [t.values[scope][measure] for t in it])
        delta = None if theirs is None else difference(ours, theirs, config)
        found[measure] = (mean(ours, config) or {"value": None, "ci95": None}) | {"delta_vs_it": delta}
    found["num_sequences"] = len(own)
    return found


def region_shares(own: Sequence[Trace], config: ReportConfig) -> Json:
    """Each region's share of the attribution."""
    return {region: mean(table(own, [t.regions.get(region) for t in own]), config) for region in REGIONS}


def table(traces: Sequence[Trace], values: Sequence[np.ndarray | None]) -> StepTable:
    """One number per completion: the mean over its tokens where it is defined."""
    means = [None if of is None else mean_over_steps(of) for of in values]
    return StepTable(
        prompts=[t.key[0] for t in traces],
        values=np.array([[np.nan if value is None else value] for value in means]).reshape(-1, 1),
        weights=np.array([t.weight for t in traces]),
    )


def mean(of: StepTable, config: ReportConfig) -> Json | None:
    """{value, ci95}; None where nothing has a value."""
    return _contrast([of.of(shared_prompts([of]))], (1,), config)


def difference(ours: StepTable, theirs: StepTable, config: ReportConfig) -> Json | None:
    """{value, ci95} of ours - theirs on the prompts that both have; None when there are none."""
    shared = shared_prompts([ours, theirs])
    return _contrast([ours.of(shared), theirs.of(shared)], (1, -1), config)


def _contrast(tables: Sequence[StepTable], weights: Sequence[float], config: ReportConfig) -> Json | None:
    found = step_means(tables, 1, config.bootstrap)
    return None if found is None else estimate_json(found.contrast(weights))
