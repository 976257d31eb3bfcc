"""The search space against the params that exist, and a point of it as overrides of one variant.

A point is written to `variants.<v>.overrides`, which wins over the defaults and over the model's own overrides: only
the swept variant changes, whichever sections it shares with the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.params.kinds import SWEEPS
from detoxlens.params.load import Params
from detoxlens.params.reads import READS, TRAINS, made_by
from detoxlens.params.section import Section
from detoxlens.params.sections import CLASSES
from detoxlens.params.sweep import Choices, Distribution, FloatRange, Method, SweepConfig, as_stored
from detoxlens.params.unread import why_unread

if TYPE_CHECKING:
    from optuna.trial import Trial

Point = Mapping[str, Any]
"""`section.key` -> value, e.g. {"lora.r": 8, "ppo.kl.coef": 0.05}."""
SHARED = {section for stage in ("prepare", "reward_model", "base", "score") for section in READS[stage]}
"""Sections of data, base model and judges, which all trials share."""
SECTIONS_OF: dict[Method, list[str]] = {
    method: [s for s in dict.fromkeys((*made_by(kind, TRAINS[kind]), *READS["generate"])) if s not in SHARED]
    for method, kind in SWEEPS.items()
}
"""The sections that a variant's training and sampling alone read."""


def choose_variant(params: Params, method: Method, asked: str | None) -> str:
    """The variant to sweep: the one asked for, or the first of `run.variants` that the method trains.

    Raises:
        UserError: there is none, or the one asked for is trained otherwise.
    """
    fitting = [v for v in params.run.variants if params.variant(v).kind == SWEEPS[method]]
    if asked is not None and params.variant(asked).kind != SWEEPS[method]:
        raise UserError(
            f"--variant {asked} is of kind {params.variant(asked).kind!r}, which --method {method} does not train; "
            f"choose one of {', '.join(fitting) or 'none declared'}."
        )
    if asked is None and not fitting:
        raise UserError(
            f"{params.path}: run.variants has none of kind {SWEEPS[method]!r} for --method {method}; declare one."
        )
    return asked or fitting[0]


def space_of(config: SweepConfig, params: Params, method: Method, models: list[str], variant: str) -> dict[str, Any]:
    """The method's search space, each name and each end of each range checked against the params.

    Raises:
        UserError: an unknown name, a value its section does not allow, or one that has no effect.
    """
    space, where = config.space.get(method, {}), f"{params.path}: sweep.space.{method}"
    if not space:
        raise UserError(f"{where} is empty; name at least one param, e.g. lora.r: {{type: int, low: 4, high: 32}}.")
    known = [name for section in SECTIONS_OF[method] for name in dotted_names(CLASSES[section], section)]
    for name, distribution in space.items():
        section = name.partition(".")[0]
        if name not in known:
            raise UserError(
                f"{where}.{name} is not a param that --method {method} can vary.{did_you_mean(name, known)} "
                f"It varies keys of {', '.join(SECTIONS_OF[method])}, written section.key."
            )
        if section == "lora" and params.variant(variant).init_from not in (None, "it"):
            raise UserError(
                f"{where}.{name} has no effect: {variant} keeps training the adapter of "
                f"{params.variant(variant).init_from!r}, whose shape is fixed. Leave lora.* out, or sweep that one."
            )
        algorithm = params.variant(variant).algorithm
        if algorithm is not None and (why := why_unread(algorithm, name)):
            raise UserError(
                f"{where}.{name} has no effect on {variant}, whose algorithm is {algorithm!r}: {why} Leave it out."
            )
        others = [other.rpartition(".")[2] for other in space if other != name]
        for value in ends(distribution):
            for model in models:
                try:
                    params_at(params, variant, {name: value}).section(
                        section, CLASSES[section], model=model, variant=variant
                    )
                except UserError as e:
                    if not any(other in str(e) for other in others):  # two swept keys may be valid together only
                        raise UserError(f"{where}.{name} includes {value!r}: {e}") from None
    return dict(space)


def committed_point(
    params: Params, space: Mapping[str, Distribution], models: Sequence[str], variant: str
) -> dict[str, Any] | None:
    """The present params as a point of the space; None where they lie outside it, or differ between the models."""
    points = [{name: _present(params, name, model, variant) for name in space} for model in models]
    inside = all(_is_in(value, space[name]) for name, value in points[0].items())
    return points[0] if inside and all(point == points[0] for point in points) else None


def _present(params: Params, name: str, model: str, variant: str) -> Any:
    section, *keys = name.split(".")
    value: Any = params.section(section, CLASSES[section], model=model, variant=variant).model_dump(mode="json")
    for key in keys:
        value = value[key]
    return value


def _is_in(value: Any, d: Distribution) -> bool:
    if isinstance(d, Choices):
        return any(as_stored(choice) == as_stored(value) for choice in d.choices)
    if value is None or not d.low <= value <= d.high:
        return False
    steps = 0.0 if d.step is None or d.log else (value - d.low) / d.step
    return abs(steps - round(steps)) < 1e-9


def dotted_names(cls: type[Section], prefix: str) -> Iterator[str]:
    """`ppo.learning_rate`, `ppo.kl.coef`, ...: every key of a section that holds a value."""
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from dotted_names(field.annotation, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def ends(distribution: Distribution) -> list[Any]:
    """The values that stand for all: both ends of a range, every choice."""
    return distribution.choices if isinstance(distribution, Choices) else [distribution.low, distribution.high]


def suggest(trial: Trial, space: Mapping[str, Distribution]) -> dict[str, Any]:
    """The sampler's point."""
    return decode({name: _suggest(trial, name, d) for name, d in space.items()}, space)


def _suggest(trial: Trial, name: str, d: Distribution) -> Any:
    if isinstance(d, Choices):
        return trial.suggest_categorical(name, [as_stored(choice) for choice in d.choices])
    if isinstance(d, FloatRange):
        return trial.suggest_float(name, d.low, d.high, log=d.log, step=d.step)
    return trial.suggest_int(name, d.low, d.high, log=d.log, step=d.step)


def decode(stored: Point, space: Mapping[str, Distribution]) -> dict[str, Any]:
    """What `as_stored` was given, for all params of a stored trial."""

    def choice_of(name: str, value: Any) -> Any:
        found = space[name]
        return next(c for c in found.choices if as_stored(c) == value) if isinstance(found, Choices) else value

    return {name: choice_of(name, value) for name, value in stored.items()}


def overrides_of(variant: str, point: Point) -> dict[tuple[str, ...], Any]:
    """Where in params.yaml a point is written: key path -> value."""
    return {("variants", variant, "overrides", *name.split(".")): value for name, value in point.items()}


def params_at(params: Params, variant: str, point: Point) -> Params:
    """The params with the point in place."""
    raw = copy.deepcopy(params.raw)
    for path, value in overrides_of(variant, point).items():
        node = raw
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return Params(raw, params.path)
