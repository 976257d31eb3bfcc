"""Measures that are contrasts of step tables, of all seeds of a method together, and of one method minus another.

Each seed has the same tables (who reads whose text, or toxic and other) and a contrast weighs them; the method's is the
mean over its seeds, on the prompts that all of them have, under the same draws of prompts, on the same steps. Intervals
hold seeds and prompts (`evaluation.seeds`): by Student's t, since two or three seeds are too few to be drawn with
replacement, as a nested bootstrap does. Where they differ much it holds the truth 87 times in 100, this 94 to 98 times.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import StepMeans, StepTable, common_support, shared_prompts, step_means
from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.multiplicity import compared_json
from detoxlens.evaluation.seeds import Seeds, difference_over_seeds, over_seeds
from detoxlens.params.report import ReportConfig

Json = dict[str, Any]
Weights = Mapping[Hashable, float]
"""Of the tables in a contrast, by their key, the same for every variant; one that is not named weighs nothing."""
BySeed = Mapping[str, Mapping[Hashable, StepTable]]
"""{variant: {key: table}}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """The tables of several variants under the same draws of prompts."""

    means: StepMeans
    keys: Sequence[tuple[str, Hashable]]
    """(variant, key) of each table of `means`."""
    num_steps: int
    num_shared: Mapping[Hashable, int]
    """Prompts of each part."""

    def weights(self, variant: str, of: Weights) -> tuple[float, ...]:
        """A contrast of one variant as weights of all tables."""
        return tuple(of.get(key, 0) if name == variant else 0 for name, key in self.keys)

    def of_method(self, seeds: Sequence[str], of: Weights) -> tuple[Estimate, Seeds]:
        """A contrast, mean over the seeds of one method, and its values by seed."""
        found = self.means.seeds([self.weights(seed, of) for seed in seeds])
        return over_seeds(found, self.means.num_prompts), found

    def difference(self, ours: Sequence[str], theirs: Sequence[str], of: Weights) -> Estimate:
        """A contrast of one method minus that of another."""
        if len(ours) == len(theirs) == 1:
            pairs = zip(self.weights(ours[0], of), self.weights(theirs[0], of), strict=True)
            return self.means.contrast([a - b for a, b in pairs])
        a, b = (self.means.seeds([self.weights(seed, of) for seed in seeds]) for seeds in (ours, theirs))
        return difference_over_seeds(a, b, self.means.num_prompts)


def together(
    tables: BySeed,
    variants: Sequence[str],
    num_steps: int,
    config: ReportConfig,
    *,
    part: Callable[[Hashable], Hashable] = lambda key: None,
) -> Together | str:
    """The tables of these variants on the prompts that all have, or a sentence that says why there are none.

    Args:
        tables: of every variant that has enough.
        variants: those that are compared.
        num_steps: at most so many; fewer where the shared prompts have fewer.
        config: bootstrap, and how many completions a step needs.
        part: of a table's key, the set of prompts that it is about; prompts are shared within a part.
    """
    if missing := [variant for variant in variants if variant not in tables]:
        return f"{', '.join(f'`{variant}`' for variant in missing)}: too little was attributed to compare"
    chosen = {(variant, key): table for variant in variants for key, table in tables[variant].items()}
    parts: dict[Hashable, list[StepTable]] = {}
    for (_, key), table in chosen.items():
        parts.setdefault(part(key), []).append(table)
    shared = {name: shared_prompts(of) for name, of in parts.items()}
    chosen = {(variant, key): table.of(shared[part(key)]) for (variant, key), table in chosen.items()}
    steps = min(num_steps, common_support(chosen, config.min_sequences_per_step).num_steps)
    means = step_means(list(chosen.values()), steps, config.bootstrap)
    if means is None:
        return (
            f"{min(map(len, shared.values()))} prompts are shared by {', '.join(f'`{v}`' for v in variants)}: fewer "
            f"than report.min_sequences_per_step={config.min_sequences_per_step} at the first step"
        )
    num_shared = {name: len(prompts) for name, prompts in shared.items()}
    return Together(means=means, keys=list(chosen), num_steps=steps, num_shared=num_shared)


def method_json(found: Together | str, seeds: Sequence[str], contrasts: Mapping[str, Weights]) -> Json:
    """{name: {value, ci95, sd_between_seeds}, num_steps, num_prompts, reason} of a method of several seeds.

    Args:
        found: what `together` returned of its seeds.
        seeds: its variants.
        contrasts: the weights of each, by name.
    """
    if isinstance(found, str):
        return _null(contrasts, found)
    estimates = {name: found.of_method(seeds, weights) for name, weights in contrasts.items()}
    return {
        name: (estimate_json(estimate) or {}) | {"sd_between_seeds": by_seed.sd}
        for name, (estimate, by_seed) in estimates.items()
    } | _counts(found)


def difference_json_of_methods(
    found: Together | str, ours: Sequence[str], theirs: Sequence[str], contrasts: Mapping[str, Weights]
) -> Json:
    """{name: ours minus theirs, with its p, num_steps, num_prompts, reason}; arguments as of `method_json`."""
    if isinstance(found, str):
        return _null(contrasts, found)
    return {
        name: compared_json(found.difference(ours, theirs, weights)) for name, weights in contrasts.items()
    } | _counts(found)


def _counts(found: Together) -> Json:
    num = list(found.num_shared.values())
    return {"num_steps": found.num_steps, "num_prompts": num if len(num) > 1 else num[0], "reason": None}


def _null(names: Iterable[str], reason: str) -> Json:
    return dict.fromkeys(names) | {"num_steps": 0, "num_prompts": 0, "reason": reason}
