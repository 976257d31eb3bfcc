"""Everything the report reads, in memory: one `VariantTables` per (model, variant) named in `run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detoxlens.attribution.aggregate import region_mass
from detoxlens.attribution.divergence import jensen_shannon_bits, kl_bits
from detoxlens.attribution.entropy import normalized_prompt_entropy, prompt_dependence, prompt_entropy_bits
from detoxlens.common.records import Attribution, Completion, Fluency, Score
from detoxlens.recorded.calibration import Calibration

MEASURES = {"prompt_entropy_bits": "bits", "prompt_entropy_normalized": "fraction", "prompt_dependence": "fraction"}
"""What is measured of an attribution at each generated token, and its unit."""

REGIONS = ("template", "user", "generated")
"""Where attribution can lie: the chat template, the user's text (an evaluation prompt is one turn: there are no earlier
ones), what was generated before."""

DIVERGENCES = {"kl": kl_bits, "jensen_shannon": jensen_shannon_bits}
"""How far a variant's scores are from those of `it` on the same text, over all tokens before the one generated."""

Key = tuple[str, int]
"""(prompt_id, sample_index): what all tables join on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """How one completion uses its prompt, generated token by generated token."""

    key: Key
    text_source: str
    """`own` completion, or the `it` variant's."""
    values: Mapping[str, np.ndarray]
    """Per measure (generated tokens,), NaN where it is not defined."""
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per region (generated tokens,): its share of the attribution, 0..1 (see `REGIONS`)."""
    divergence: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per divergence (generated tokens,), in bits, from `it` on the same text (see `DIVERGENCES`)."""

    @property
    def num_tokens(self) -> int:
        return len(next(iter(self.values.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantTables:
    """The tables of one (model, variant)."""

    variant: str
    group: str
    """The method: several seeds of it share one. The variant's own name when none is declared."""
    completions: Sequence[Completion]
    scores: Mapping[str, Sequence[Score]]
    """Per scorer, in the order of the file."""
    fluency: Sequence[Fluency]
    traces: Sequence[Trace]
    num_attributions: Mapping[str, int]
    """Test attributions by status, own text only; `ok` are those with a trace."""
    methods: Sequence[str]
    """How it was attributed, e.g. `input_x_gradient of the probability`."""
    shown: Sequence[Attribution]
    """The few that are drawn as heat maps."""
    history: Sequence[Mapping[str, float]]
    faithfulness: Mapping[str, Any] | None

    def keys_of(self, split: str, name: str | None = None) -> set[Key]:
        """Completions of a part of the data (`val`, `test`), all or those that meet the filter `name`."""
        rows = (c for c in self.completions if c.split == split and (name is None or name in c.filters))
        return {(c.prompt_id, c.sample_index) for c in rows}

    def toxicity(self, scorer: str) -> dict[Key, float]:
        """The scored completions' toxicity, 0..1."""
        rows = self.scores.get(scorer, ())
        return {(s.prompt_id, s.sample_index): s.toxicity for s in rows if s.toxicity is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that is compared."""

    models: Mapping[str, Mapping[str, VariantTables]]
    """Per model and variant, in the order of params `run`; every model has `it`."""
    splits: Sequence[str]
    """Names of the test splits, in the order of params `splits`."""
    grader: str
    """The scorer of the tables."""
    calibration: Calibration | None = None
    """Says the same in another scorer's terms, where params `toxicity.calibration` names one."""
    notes: Sequence[str] = ()
    """What a reader must know about how this run was set up."""


def trace_of(
    attribution: Attribution, *, mask_template: bool, it_scores: Sequence[Sequence[float]] | None = None
) -> Trace | None:
    """The measures of one attribution; None when it has no scores.

    Args:
        attribution: of one completion.
        mask_template: leave the template's tokens out of entropy and dependence.
        it_scores: those of `it` on the same tokens, to measure the divergence from.
    """
    if attribution.scores is None:
        return None
    num_prompt = len(attribution.prompt_ids)
    keep = [not is_template for is_template in attribution.prompt_token_is_template] if mask_template else None
    measure = {
        "prompt_entropy_bits": prompt_entropy_bits,
        "prompt_entropy_normalized": normalized_prompt_entropy,
        "prompt_dependence": prompt_dependence,
    }
    values = {
        name: np.array([_number(function(row, num_prompt, keep)) for row in attribution.scores])
        for name, function in measure.items()
    }
    regions = ["template" if is_template else "user" for is_template in attribution.prompt_token_is_template]
    masses = [region_mass(row, regions) for row in attribution.scores]
    pairs = [] if it_scores is None else list(zip(attribution.scores, it_scores, strict=True))
    return Trace(
        key=(attribution.prompt_id, attribution.sample_index),
        text_source=attribution.text_source,
        values=values,
        regions={region: np.array([mass.get(region, 0.0) for mass in masses]) for region in REGIONS},
        divergence={name: np.array([of(*pair) for pair in pairs]) for name, of in DIVERGENCES.items() if pairs},
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
