"""A sampler whose draws depend on the study's seed and the trial's number alone.

Workers with one seed would propose the same points; so would a study that is stopped and taken up again. Here every
trial draws from a stream of its own, whichever worker on whichever machine asks: what it knows of earlier trials is in
the storage. With one worker a study is therefore repeatable to the bit, stopped between two trials or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from detoxlens.common.seeding import derive_seed
from detoxlens.params.sweep import SweepConfig


def make_sampler(config: SweepConfig) -> SeededPerTrial:
    """The sampler that params section `sweep` names."""
    if config.sampler == "tpe":
        return SeededPerTrial(
            lambda seed: TPESampler(seed=seed, n_startup_trials=config.num_startup_trials), config.seed
        )
    population = max(2, config.num_startup_trials)
    return SeededPerTrial(lambda seed: NSGAIISampler(seed=seed, population_size=population), config.seed)


def trial_seed(seed: int, number: int) -> int:
    """The seed of trial `number`, in [0, 2**32) as NumPy's RandomState takes it."""
    return derive_seed(seed, "sweep", number) % 2**32


class SeededPerTrial(BaseSampler):
    """Asks a fresh sampler, seeded by `trial_seed`, for each trial."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = self._make(trial_seed(self._seed, trial.number))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: list[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)
