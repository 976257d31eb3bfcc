"""Model effect and text effect: position-standardised means, and the 2x2 of model and text. Pure.

A measure of one model reading one text is a table: a row per completion, a column per generated token, NaN behind the
completion's end. Most measures change along a completion, so that a mean over all tokens compares lengths. Here every
table is averaged step by step and then over steps 1..S with equal weights, S being the last step at which each of the
tables that are compared still has enough rows: the same steps and the same weights for all.

                       text of base     own text
    base reads           M_b(T_b)        M_b(T_v)
    the variant reads    M_v(T_b)        M_v(T_v)

    model effect = mean of  M_v(T_b) - M_b(T_b)  and  M_v(T_v) - M_b(T_v)        the same text, another model
    text effect  = mean of  M_b(T_v) - M_b(T_b)  and  M_v(T_v) - M_v(T_b)        the same model, another text
    total        =          M_v(T_v) - M_b(T_b)  =  model effect + text effect

Averaged over both orders: Kitagawa 1955, doi:10.1080/01621459.1955.10501299.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detoxlens.evaluation.bands import max_t_band
from detoxlens.evaluation.intervals import Estimate, percentile_interval
from detoxlens.evaluation.seeds import Seeds
from detoxlens.evaluation.stats import cluster, resampled_means
from detoxlens.params.report import Bootstrap

Cell = tuple[str, str]
"""(who reads, whose text)"""

EFFECTS: Mapping[str, tuple[float, float, float, float]] = {
    # weights of     M_b(T_b)  M_b(T_v)  M_v(T_b)  M_v(T_v)
    "level": (0, 0, 0, 1),
    "model_effect": (-0.5, -0.5, 0.5, 0.5),
    "model_effect_on_base_text": (-1, 0, 1, 0),
    "model_effect_on_own_text": (0, -1, 0, 1),
    "text_effect": (-0.5, 0.5, -0.5, 0.5),
    "text_effect_read_by_base": (-1, 1, 0, 0),
    "text_effect_read_by_variant": (0, 0, -1, 1),
    "total": (-1, 0, 0, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """One measure of one model reading one text."""

    prompts: Sequence[Hashable]
    """(rows,) the prompt of each completion: what is resampled."""
    values: np.ndarray
    """(rows, steps), NaN where there is no token or no value."""
    weights: np.ndarray | None = None
    """(rows,) how many completions a row stands for; None is one each."""

    def num_rows(self, step: int) -> int:
        """Rows with a value at a step, from 0."""
        return int((~np.isnan(self.values[:, step])).sum())

    def of(self, prompts: set[Hashable]) -> StepTable:
        """The rows of these prompts."""
        rows = [i for i, prompt in enumerate(self.prompts) if prompt in prompts]
        weights = None if self.weights is None else self.weights[rows]
        return StepTable(prompts=[self.prompts[i] for i in rows], values=self.values[rows], weights=weights)


@dataclass(frozen=True, slots=True)
class Support:
    """The steps that all compared tables have: Support(num_steps=12, limited_by=("ft", "it"))."""

    num_steps: int
    """1..S; 0 where some table has too few rows at the first step already."""
    limited_by: Hashable
    """The key of the table that ends first."""


@dataclass(frozen=True, slots=True)
class StepMeans:
    """Means per step of several tables under the same draws of prompts."""

    values: np.ndarray  # (tables, steps)
    draws: np.ndarray  # (resamples, tables, steps), NaN where a draw misses all rows of a step
    present: np.ndarray  # (tables, steps): prompts with a value
    num_prompts: int
    """In all tables together."""

    def contrast(self, weights: Sequence[float]) -> Estimate:
        """The weighted sum of the tables' standardised means, with its 95 % interval; none below two prompts."""
        value, drawn = float(self._weighted(self.values, weights).mean()), self.standardized_draws(weights)
        drawn = drawn[~np.isnan(drawn)]
        fewest = int(min(self.present[i].max() for i, weight in enumerate(weights) if weight))
        return Estimate(value, percentile_interval(drawn, fewest) if fewest > 1 else None, self.num_prompts)

    def standardized_draws(self, weights: Sequence[float]) -> np.ndarray:
        """(resamples,): the same on resampled prompts; NaN in a draw that misses a step."""
        return self._weighted(self.draws.swapaxes(0, 1), weights).mean(-1)

    def seeds(self, weights: Sequence[Sequence[float]]) -> Seeds:
        """The weighted sum of each seed of a method, one row of `weights` each, under the same draws of prompts."""
        values = tuple(float(self._weighted(self.values, of).mean()) for of in weights)
        drawn = np.stack([self.standardized_draws(of) for of in weights])
        return Seeds(values, drawn[:, ~np.isnan(drawn).any(axis=0)])

    def curve(self, weights: Sequence[float]) -> Curve:
        """The weighted sum at each step, with a 95 % interval for each step and a band for all steps at once."""
        values, draws = (self._weighted(of, weights) for of in (self.values, self.draws.swapaxes(0, 1)))
        fewest = self.present[[i for i, weight in enumerate(weights) if weight]].min(0)
        ends = np.full((2, len(values)), np.nan)
        for step in np.flatnonzero(fewest > 1):
            drawn = draws[:, step]
            ends[:, step] = percentile_interval(drawn[~np.isnan(drawn)], int(fewest[step]))
        return Curve(values, *ends, *max_t_band(values, draws, int(fewest.min())))

    @staticmethod
    def _weighted(of_tables: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        """The weighted sum over the first axis; a table of weight 0 does not count, not even by its missing values."""
        return sum(weight * of_tables[i] for i, weight in enumerate(weights) if weight)


@dataclass(frozen=True, slots=True)
class Curve:
    """Each (steps,); NaN ends where there is one prompt only."""

    mean: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    band_lo: np.ndarray
    band_hi: np.ndarray


def shared_prompts(tables: Sequence[StepTable]) -> set[Hashable]:
    """The prompts of which every table has a value."""
    return set.intersection(
        *({p for p, row in zip(t.prompts, t.values, strict=True) if not np.isnan(row).all()} for t in tables)
    )


def common_support(tables: Mapping[Hashable, StepTable], minimum: int) -> Support:
    """The longest run of steps, from the first, at which every table has `minimum` values or more."""
    lengths = {key: _length(table.values, minimum) for key, table in tables.items()}
    shortest = min(lengths, key=lengths.__getitem__)  # the first of equals
    return Support(lengths[shortest], shortest)


def step_means(tables: Sequence[StepTable], num_steps: int, bootstrap: Bootstrap) -> StepMeans | None:
    """The means of each table at steps 1..num_steps, with their draws.

    Args:
        tables: a prompt that only some of them have counts where it is; pass `of(shared_prompts(...))` for pairs.
        num_steps: from `common_support`.
        bootstrap: the draws of prompts, the same for all tables.

    Returns:
        None where there is no step, or a table has a step without any value.
    """
    keys = list(dict.fromkeys(prompt for table in tables for prompt in table.prompts))
    if not num_steps or not keys:
        return None
    data = []
    for table in tables:
        rows = np.full((len(table.prompts), num_steps), np.nan)
        width = min(num_steps, table.values.shape[1])
        rows[:, :width] = table.values[:, :width]
        data.append(cluster(table.prompts, rows, table.weights).only(keys))
    values = np.array([d.means for d in data])
    if np.isnan(values).any():
        return None
    present = np.array([(d.counts > 0).sum(0) for d in data])
    return StepMeans(values, np.stack(resampled_means(bootstrap, *data), axis=1), present, len(keys))


def _length(values: np.ndarray, minimum: int) -> int:
    enough = (~np.isnan(values)).sum(0) >= minimum
    return len(enough) if enough.all() else int(np.argmin(enough))
