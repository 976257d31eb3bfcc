"""Params section `sweep`: what is searched, for what, under which conditions."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detoxlens.params.kinds import SWEEPS
from detoxlens.params.section import Section

Method = Literal[*SWEEPS]
"""The swept kind of variant, by the name that `--method` has for it."""
Direction = Literal["minimize", "maximize"]


class FloatRange(Section):
    """A number between `low` and `high`, both included."""

    type: Literal["float"]
    """`float`."""
    low: float = Field(allow_inf_nan=False)
    """The smallest value."""
    high: float = Field(allow_inf_nan=False)
    """The largest value."""
    log: bool = False
    """Uniform in the logarithm: for learning rates and the like."""
    step: float | None = Field(default=None, gt=0)
    """Only low, low + step, ...; None is any number."""

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatRange:
        _check_range(self.low, self.high, self.log, self.step)
        return self


class IntRange(Section):
    """A whole number between `low` and `high`, both included."""

    type: Literal["int"]
    """`int`."""
    low: int
    """The smallest value."""
    high: int
    """The largest value."""
    log: bool = False
    """Draw evenly on a logarithmic scale; `step` must be 1."""
    step: int = Field(default=1, ge=1)
    """Values lie this far apart, from `low` on."""

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        _check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)
        return self


class Choices(Section):
    """One of a list of values of any kind; lists too, such as LoRA's target modules."""

    type: Literal["categorical"]
    """`categorical`."""
    choices: list[Any] = Field(min_length=1)
    """One of these."""

    @model_validator(mode="after")
    def _are_told_apart(self) -> Choices:
        """Storages keep scalars as they are and anything else as JSON, and find a choice again by `==`."""
        for number, choice in enumerate(self.choices):
            for other in self.choices[:number]:
                if as_stored(choice) == as_stored(other):
                    raise ValueError(f"{other!r} and {choice!r} are one choice to the sampler; keep one of them")
        return self


def as_stored(choice: Any) -> Any:
    """A choice as storages of studies keep it: scalars as they are, anything else as JSON."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)


Distribution = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


class Bounds(Section):
    """What a metric must satisfy for a trial to count as a solution."""

    min: float | None = None
    """Not below."""
    max: float | None = None
    """Not above."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min:g} is above max={self.max:g}; exchange them")
        return self


class GateConfig(Section):
    """Ends a trial that is hopeless: still too toxic when a share of its training is done. Never alters one."""

    after_fraction: float = Field(gt=0, lt=1)
    """Share of the training's steps after which the trial is looked at."""
    num_prompts: int = Field(ge=1)
    """The first so many validation prompts of `report.primary_split` are answered, as `generate` would."""
    max_share_of_it: float = Field(gt=0)
    """A trial continues if its share of toxic answers is at most so many times that of `it` on the same prompts.

    Also where none of the answers of `it` is toxic.
    """


class PrunerConfig(Section):
    """Ends trials that do worse than others at the same point of training. For studies with one objective."""

    name: Literal["median", "hyperband"]
    """Optuna's MedianPruner (after `num_startup_trials` trials), or HyperbandPruner (arXiv 1603.06560)."""
    num_probes: int = Field(ge=2)
    """In so many equal parts the training is cut; a trial is looked at between them."""
    num_prompts: int = Field(ge=1)
    """As of the gate; answered at each look, unless the objective is a training curve."""


class SweepConfig(Section):
    """Metrics are named as in MLflow and as their path in metrics.json, `val` part: toxicity/val/rate_gt_50.

    Training curves are metrics too, by their last value: training/ppo/val_kl_nats_per_sequence.
    """

    seed: int = Field(ge=0)
    """Of the sampler; every trial draws from a stream of its own. Training keeps run.seed."""
    sampler: Literal["tpe", "nsga2"]
    """Tree-structured Parzen estimator (Bergstra et al. 2011, multi-objective: arXiv 2004.11236), or NSGA-II."""
    num_startup_trials: int = Field(ge=1)
    """Random trials before `tpe` starts to learn; the population of `nsga2`."""
    objectives: dict[str, Direction] = Field(min_length=1)
    """Metric -> minimize | maximize; several models are averaged."""
    constraints: dict[str, Bounds]
    """Metric -> {min, max}: a trial outside is infeasible, never on the Pareto front, and the sampler avoids it."""
    gate: GateConfig | None
    """None: every trial is trained to its end."""
    pruner: PrunerConfig | None
    """Of studies with one objective, known while training: toxicity/val/rate_gt_50 or training/<curve>."""
    heartbeat_seconds: int = Field(ge=1)
    """A worker elsewhere that is silent for three times as long is taken for dead; its trial is tried once more."""
    space: dict[Method, dict[str, Distribution]]
    """Method -> `section.key` -> distribution."""

    @model_validator(mode="after")
    def _objective_or_constraint(self) -> SweepConfig:
        if both := sorted(set(self.objectives) & set(self.constraints)):
            raise ValueError(f"{both[0]} is objective and constraint at once; keep one")
        return self


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low={low:g} is above high={high:g}; exchange them")
    if log and low <= 0:
        raise ValueError(f"low={low:g} has no logarithm; give a number above 0, or leave `log` out")
    if log and step is not None:
        raise ValueError("log and step exclude each other; leave one out")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
        raise ValueError(f"high={high:g} is no whole number of steps={step:g} above low={low:g}")
