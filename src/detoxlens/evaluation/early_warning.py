"""How well a number known early tells the completions that turn toxic from the others: AUROC. Pure, seeded.

AUROC = P(x of a toxic one > x of another one) + half of the ties (Mann and Whitney 1947): .5 is chance, 0 as good as 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from detoxlens.evaluation.intervals import Estimate, percentile_interval
from detoxlens.evaluation.label_nulls import p_value
from detoxlens.evaluation.stats import times_drawn
from detoxlens.params.report import Bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Warned(auroc=Estimate(.61, (.52, .70), 140), p=.02, num_toxic=60, num_other=80)."""

    auroc: Estimate
    p: float | None
    """Labels dealt out anew among the completions."""
    num_toxic: int
    num_other: int


def auroc(
    prompts: Sequence[Hashable],
    values: np.ndarray,
    toxic: np.ndarray,
    bootstrap: Bootstrap,
    *,
    num_draws: int,
    rng: np.random.Generator,
) -> Warned | None:
    """AUROC of `values` (completions,), NaN left out; None where one side is empty.

    Args:
        prompts: (completions,): what is resampled.
        values: known early.
        toxic: (completions,), True where it turns toxic.
        bootstrap: of prompts.
        num_draws: of the null.
        rng: of the null.
    """
    there = ~np.isnan(values)
    values, toxic = values[there], toxic[there]
    prompts = [prompt for prompt, ok in zip(prompts, there, strict=True) if ok]
    num_toxic, num_other = int(toxic.sum()), int((~toxic).sum())
    if not num_toxic or not num_other:
        return None
    wins = (values[toxic][:, None] > values[~toxic]) + 0.5 * (values[toxic][:, None] == values[~toxic])
    value = float(wins.mean())
    keys = {key: i for i, key in enumerate(dict.fromkeys(prompts))}
    of_prompt = np.array([keys[prompt] for prompt in prompts])
    times = times_drawn(bootstrap, len(keys))[:, of_prompt]
    a, b = times[:, toxic], times[:, ~toxic]
    whole = a.sum(1) * b.sum(1)
    draws = (np.einsum("ri,ij->rj", a, wins) * b).sum(1)
    drawn = np.divide(draws, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    ranks = rankdata(values)
    dealt = rng.permuted(np.tile(toxic, (num_draws, 1)), axis=1)
    null = ((dealt * ranks).sum(1) - num_toxic * (num_toxic + 1) / 2) / (num_toxic * num_other)
    fewest = min(num_toxic, num_other)
    interval = percentile_interval(drawn[~np.isnan(drawn)], fewest) if fewest > 1 else None
    return Warned(
        auroc=Estimate(value, interval, len(keys)), p=p_value(value, null), num_toxic=num_toxic, num_other=num_other
    )
