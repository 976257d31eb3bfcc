"""Paths of methods by the strength of their adapters, and their distance where they are equally toxic. Pure.

A path has a point per strength alpha: toxicity, and what else changed (model effects, divergence, perplexity), all of
the same prompts. Between two strengths every quantity is taken as linear in alpha. A level is a share of base's
toxicity; it is read where the path first falls to it, coming from base:

    alpha                      0     .25    .5     .75     1
    toxicity / that of base    1     .9     .6     .3     .1
    level .5                                   at .5 + .25 (.6 - .5) / (.6 - .3) = .583

and the other quantities there are .667 of those at .5 and .333 of those at .75. Nothing is extrapolated: a path that
does not fall to the level has no value. Prompts are resampled once for all strengths of all variants, and every draw
finds its own strengths, so the interval of a distance covers the search too. Draws that miss the level are left out;
where they are more than `MOST_MISSED` there is no interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.effects import EFFECTS, StepTable
from detoxlens.evaluation.intervals import Estimate, percentile_interval
from detoxlens.evaluation.seeds import Seeds, difference_over_seeds
from detoxlens.evaluation.stats import cluster, resampled_means
from detoxlens.params.report import Bootstrap

MOST_MISSED = 0.05
"""Share of draws that may not fall to a level."""
TOXICITY, PERPLEXITY = "toxicity", "perplexity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """What was measured at one strength; at 0 there are no effects and no means over steps: they are 0."""

    toxic: StepTable
    """(rows, 1): 1 where toxicity > .5, 0 where not, NaN where not scored."""
    nll_nats: StepTable
    """(rows, 1) under base, NaN where the completion is empty."""
    num_tokens: StepTable
    """(rows, 1)."""
    quads: Mapping[str, Sequence[StepTable]]
    """Measure -> the four tables of `effects.EFFECTS`, on the prompts that all four have."""
    means: Mapping[str, StepTable]
    """Measure -> its table: a divergence from base on base's text."""


@dataclass(frozen=True, slots=True)
class Path:
    """One variant's path."""

    alphas: np.ndarray  # (strengths,), rising
    values: Mapping[str, np.ndarray]  # (strengths,) of each quantity
    draws: Mapping[str, np.ndarray]  # (resamples, strengths)
    num_prompts: Mapping[str, int]
    """Behind each quantity."""

    def at_strength(self, quantity: str, index: int) -> Estimate:
        """A quantity at one strength, with its interval; none where it is 0 by definition."""
        n, drawn = self.num_prompts[quantity], self.draws[quantity][:, index]
        drawn = drawn[~np.isnan(drawn)]
        known = n > 1 and len(drawn) and drawn.any()
        return Estimate(float(self.values[quantity][index]), percentile_interval(drawn, n) if known else None, n)

    def at_level(self, quantity: str, level: float) -> tuple[float, np.ndarray]:
        """(value, draws (resamples,)) at `level` times base's toxicity; NaN where the path does not fall to it."""
        (of_value,) = level_weights(self._relative(self.values)[None], self.alphas, level)
        of_draws = level_weights(self._relative(self.draws), self.alphas, level)
        values, draws = self.values[quantity], self.draws[quantity]
        return float(_weighted(of_value[None], values[None])[0]), _weighted(of_draws, draws)

    def strength_at(self, level: float) -> float:
        """The strength at which toxicity is `level` times base's; NaN where the path does not fall to it."""
        (weights,) = level_weights(self._relative(self.values)[None], self.alphas, level)
        return float((weights * self.alphas).sum())

    @property
    def lowest(self) -> float:
        """The least toxicity from base on, as a share of base's."""
        return float(np.min(self._relative(self.values)[self.alphas >= 0]))

    def _relative(self, of: Mapping[str, np.ndarray]) -> np.ndarray:
        toxicity = of[TOXICITY]
        base = toxicity[..., self.alphas == 0]
        return np.divide(toxicity, base, out=np.full_like(toxicity, np.nan), where=base > 0)


def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(draws,) sums over strengths; what has no weight does not count, not even by being missing."""
    return np.where(weights == 0, 0.0, weights * values).sum(axis=1)


def level_weights(relative: np.ndarray, alphas: np.ndarray, level: float) -> np.ndarray:
    """(draws, strengths): how much each strength counts where the path first falls to `level`; NaN where it never does.

    Args:
        relative: (draws, strengths) toxicity as a share of base's.
        alphas: (strengths,) rising, 0 among them; those below 0 do not count.
        level: below 1.
    """
    reached = (relative <= level) & (alphas > 0)
    later = reached.argmax(axis=1)
    found, rows = reached.any(axis=1), np.arange(len(relative))
    high, low = relative[rows, later - 1], relative[rows, later]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(found, (high - level) / (high - low), np.nan)  # 0: at the one before; 1: at the later one
    weights = np.zeros_like(relative)
    weights[rows, later - 1], weights[rows, later] = 1 - share, share
    weights[~found] = np.nan
    return weights


def path(strengths: Mapping[float, Strength], keys: Sequence[Hashable], num_steps: int, bootstrap: Bootstrap) -> Path:
    """The path of one variant.

    Args:
        strengths: by alpha, rising, 0 among them.
        keys: the prompts that are resampled; the same, in the same order, for every variant that is compared.
        num_steps: over which effects are averaged (`effects.common_support`); 0 leaves them out.
        bootstrap: the draws of prompts.
    """
    points = [_quantities(strength, keys, num_steps, bootstrap) for strength in strengths.values()]
    names = list(dict.fromkeys(name for point in points for name in point))
    nothing = 0.0, np.zeros(bootstrap.num_resamples), 0  # base minus base
    of = {name: [point.get(name, nothing) for point in points] for name in names}
    return Path(
        np.array(list(strengths)),
        {name: np.array([value for value, _, _ in found]) for name, found in of.items()},
        {name: np.stack([drawn for _, drawn, _ in found], axis=1) for name, found in of.items()},
        {name: max(num for _, _, num in found) for name, found in of.items()},
    )


def distance(
    ours: Sequence[Path], theirs: Sequence[Path], quantity: str, level: float
) -> tuple[Estimate | None, float]:
    """One method's paths minus another's where all have `level` times base's toxicity; the share of draws that miss it.

    None where one of them does not fall to the level; no interval where more than `MOST_MISSED` of the draws missed it.
    With one path each the interval is about prompts, with several seeds' paths about seeds and prompts.
    """
    values, draws = zip(*(of.at_level(quantity, level) for of in (*ours, *theirs)), strict=True)
    drawn = np.stack(draws)
    whole = ~np.isnan(drawn).any(axis=0)
    missed = 1 - float(whole.mean())
    if np.isnan(values).any():
        return None, missed
    n, m = min(of.num_prompts[quantity] for of in (*ours, *theirs)), len(ours)
    a, b = (Seeds(values[of], drawn[of][:, whole]) for of in (slice(m), slice(m, None)))
    if n < 2 or missed > MOST_MISSED:
        return Estimate(a.mean - b.mean, None, n), missed
    if len(values) == 2:
        return Estimate(a.mean - b.mean, percentile_interval((a.draws - b.draws)[0], n), n), missed
    return difference_over_seeds(a, b, n), missed


Quantity = tuple[float, np.ndarray, int]
"""Value, draws (resamples,), prompts behind it."""


def _quantities(
    strength: Strength, keys: Sequence[Hashable], num_steps: int, bootstrap: Bootstrap
) -> dict[str, Quantity]:
    def mean(table: StepTable, width: int) -> tuple[np.ndarray, np.ndarray, int]:
        data = cluster(table.prompts, table.values[:, :width], table.weights).only(keys)
        (draws,) = resampled_means(bootstrap, data)
        return data.means, draws, int((data.counts[:, 0] > 0).sum())

    toxic, toxic_draws, num_scored = mean(strength.toxic, 1)
    nll, nll_draws, num_read = mean(strength.nll_nats, 1)
    tokens, token_draws, _ = mean(strength.num_tokens, 1)
    found: dict[str, Quantity] = {TOXICITY: (float(toxic[0]), toxic_draws[:, 0], num_scored)}
    found[PERPLEXITY] = float(np.exp(nll / tokens)[0]), np.exp(nll_draws / token_draws)[:, 0], num_read
    if num_steps:
        for name, quad in strength.quads.items():
            cells = [mean(table, num_steps) for table in quad]
            weights = EFFECTS["model_effect"]
            value, drawn = (sum(w * cell[i] for w, cell in zip(weights, cells, strict=True)) for i in (0, 1))
            found[name] = float(value.mean()), drawn.mean(axis=1), cells[0][2]
        for name, table in strength.means.items():
            value, drawn, num = mean(table, num_steps)
            found[name] = float(value.mean()), drawn.mean(axis=1), num
    return found
