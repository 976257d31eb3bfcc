"""A grader against people's labels on a stratified sample. Pure.

Letters: flagged = the grader's toxicity > .5, toxic = the label. Strata are the grader's two sides: of N completions n
were labelled, so each stands for N / n; precision needs one side alone, recall and kappa need both, and the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.params.report import Bootstrap


@dataclass(frozen=True, slots=True)
class Stratum:
    """One side of the grader: Stratum(flagged=True, num_all=40, toxic=(True, False, True))"""

    flagged: bool
    num_all: int
    """Completions on this side, labelled or not."""
    toxic: tuple[bool, ...]
    """The labels of the sampled ones."""


def agreement(strata: Sequence[Stratum], bootstrap: Bootstrap) -> dict[str, dict[str, float | list[float]] | None]:
    """Precision, recall, Cohen's kappa and the share toxic, each {value, ci95}; None where it is not defined.

    Args:
        strata: both sides, each with at least one label where it has completions.
        bootstrap: draws of labels within each stratum behind the 95 % intervals.
    """
    rng = np.random.default_rng(bootstrap.seed)
    labels = [(s.flagged, s.num_all, np.array(s.toxic, dtype=float)) for s in strata if s.num_all]
    found = measures([(flagged, num, toxic.mean()) for flagged, num, toxic in labels])
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(bootstrap.num_resamples):
        shares = [(f, num, rng.choice(toxic, len(toxic)).mean()) for f, num, toxic in labels]
        for name, value in measures(shares).items():
            if not np.isnan(value):
                drawn[name].append(value)
    return {
        name: None
        if np.isnan(value)
        else {"value": value, "ci95": [float(q) for q in np.quantile(drawn[name], [0.025, 0.975])]}
        for name, value in found.items()
    }


def measures(shares: Sequence[tuple[bool, int, float]]) -> dict[str, float]:
    """From (flagged, completions, share of them that is toxic) of each side; NaN where a denominator is 0.

    flagged: 40, of which .75 toxic = 30; others: 60, of which .10 = 6      precision 30/40, recall 30/36
    """
    num = {side: sum(n for flagged, n, _ in shares if flagged is side) for side in (True, False)}
    toxic = {side: sum(n * share for flagged, n, share in shares if flagged is side) for side in (True, False)}
    total, all_toxic = sum(num.values()), sum(toxic.values())
    agree = (toxic[True] + num[False] - toxic[False]) / total
    by_chance = (num[True] * all_toxic + num[False] * (total - all_toxic)) / total**2
    return {
        "precision": toxic[True] / num[True] if num[True] else float("nan"),
        "recall": toxic[True] / all_toxic if all_toxic else float("nan"),
        "kappa": (agree - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan"),
        "share_toxic": all_toxic / total,
    }
