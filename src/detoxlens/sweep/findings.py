"""A study read once: its trials, front and choice, and the paragraph that says what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detoxlens.sweep.early import EARLY_TOXICITY
from detoxlens.sweep.liveness import REASON
from detoxlens.sweep.study import point_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENOUGH_FOR_IMPORTANCE = 4
FEW = 20
"""Below so many complete trials, importances are said to be a hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial, as the tables and figures need it."""

    number: int
    state: str
    """complete | pruned | failed | running | waiting"""
    point: Mapping[str, Any]
    values: tuple[float, ...] | None
    """In the order of the objectives; None unless complete."""
    feasible: bool
    """Complete, and within all constraints."""
    metrics: Mapping[str, float]
    early_toxicity: float | None
    """At the gate, averaged over models; None without a gate."""
    reason: str
    """Why the trial was ended early, or could not be trained."""
    retry_of: int | None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A study, read once."""

    name: str
    variant: str
    objectives: Mapping[str, str]
    constraints: Mapping[str, Mapping[str, float]]
    trials: Sequence[TrialRow]
    importances: Mapping[str, Mapping[str, float]]
    """Objective -> param -> share of its variance, largest first; empty where there is too little to say."""
    baseline: Mapping[str, float]
    """The objectives' values for `it`."""

    @property
    def front(self) -> list[TrialRow]:
        """The feasible trials that no other beats in every objective, by the first objective."""
        signs = [1 if d == "minimize" else -1 for d in self.objectives.values()]
        costs = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in self.trials if t.feasible}
        kept = pareto(costs)
        return sorted((t for t in self.trials if t.number in kept), key=lambda t: (costs[t.number], t.number))

    @property
    def best(self) -> TrialRow | None:
        """Of the front, the trial nearest to the ideal: each objective from its best (0) to its worst (1) there."""
        front = self.front
        if not front:
            return None
        signs = [1 if d == "minimize" else -1 for d in self.objectives.values()]
        costs = [[s * v for s, v in zip(signs, t.values, strict=True)] for t in front]
        low, high = [min(c) for c in zip(*costs, strict=True)], [max(c) for c in zip(*costs, strict=True)]

        def distance(cost: Sequence[float]) -> float:
            return sum(((c - a) / (b - a)) ** 2 for c, a, b in zip(cost, low, high, strict=True) if b > a)

        return front[min(range(len(front)), key=lambda i: (distance(costs[i]), front[i].number))]


def pareto(costs: Mapping[int, Sequence[float]]) -> set[int]:
    """The keys whose costs no other's are below or equal to everywhere and below somewhere."""

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return {i for i, cost in costs.items() if not any(beats(other, cost) for other in costs.values())}


def find(study: Study, definition: Mapping[str, Any], baseline: Mapping[str, float]) -> Findings:
    """Reads a study; `definition` is what it was begun with."""
    trials = study.get_trials(deepcopy=False)
    return Findings(
        name=study.study_name,
        variant=definition["variant"],
        objectives=definition["objectives"],
        constraints=definition["constraints"],
        trials=[_row(trial, definition) for trial in trials],
        importances={name: _importances(study, number) for number, name in enumerate(definition["objectives"])},
        baseline=baseline,
    )


def _row(trial: FrozenTrial, definition: Mapping[str, Any]) -> TrialRow:
    complete = trial.state.name == "COMPLETE"
    state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
    early = list(trial.user_attrs.get(EARLY_TOXICITY, {}).values())
    return TrialRow(
        number=trial.number,
        state=state,
        point=point_of(definition, trial),
        values=tuple(trial.values) if complete else None,
        feasible=complete and all(v <= 0 for v in trial.constraints.values()),
        metrics=trial.user_attrs.get("metrics", {}),
        early_toxicity=sum(early) / len(early) if early else None,
        reason=trial.user_attrs.get(REASON, ""),
        retry_of=trial.system_attrs.get("failed_trial"),
    )


def _importances(study: Study, number: int) -> dict[str, float]:
    """fANOVA (Hutter et al. 2014) of objective `number` over the complete trials."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    if len(complete) < ENOUGH_FOR_IMPORTANCE or len({t.values[number] for t in complete}) < 2:
        return {}
    return get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0), target=lambda trial: trial.values[number]
    )


def label(metric: str) -> str:
    """A metric's name in words: `toxicity/val/rate_gt_50` -> `toxicity rate > .5`."""
    group, *parts = (part for part in metric.split("/") if part not in ("val", "value"))
    words = " ".join(parts).replace("rate_gt_50", "rate > .5").replace("_", " ")
    return words if group == "attribution" else f"{group} {words}"


def conclusions(found: Findings) -> str:
    """One paragraph: what was tried, what it led to, and how far that can be trusted."""
    complete = [t for t in found.trials if t.values is not None]
    failed = [t for t in found.trials if t.reason and t.state == "failed"]
    pruned = [t for t in found.trials if t.state == "pruned"]
    front, best = found.front, found.best
    parts = [f"{len(complete)} trials of `{found.variant}` were completed"]
    parts += [f"{len(pruned)} ended early"] if pruned else []
    parts += [f"{len(failed)} could not be trained"] if failed else []
    said = [" and ".join([", ".join(parts[:-1]), parts[-1]]) + "." if parts[1:] else f"{parts[0]}."]
    if infeasible := sum(not t.feasible for t in complete):
        limits = ", ".join(f"{label(name)} {_bounds(b)}" for name, b in found.constraints.items())
        said.append(f"{infeasible} broke a constraint ({limits}).")
    if best is None:
        return " ".join([*said, "No feasible trial: loosen the constraints or widen the space."])
    said.append(f"The Pareto front has {len(front)} point{'s' if len(front) > 1 else ''}.")
    for i, (name, direction) in enumerate(found.objectives.items()):
        on_front = [t.values[i] for t in front]
        said.append(
            f"{_capital(label(name))} ({direction}d) runs from {min(on_front):.4g} to {max(on_front):.4g} along it"
            + (f"; base has {found.baseline[name]:.4g}." if name in found.baseline else ".")
        )
    values = ", ".join(f"{v:.4g}" for v in best.values)
    said.append(f"Nearest to the ideal in both directions at once is trial {best.number} ({values}).")
    hint = ", a hint only at this number of trials" if len(complete) < FEW else ""
    for name, shares in found.importances.items():
        if shares:
            first, share = next(iter(shares.items()))
            said.append(
                f"{_capital(label(name))} varied most with `{first}` ({100 * share:.0f} % of its variance by "
                f"fANOVA{hint})."
            )
    said.append("All values are of validation prompts and were selected for: the report's test numbers are the test.")
    return " ".join(said)


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _bounds(bounds: Mapping[str, float]) -> str:
    words = {"min": "at least", "max": "at most"}
    return " and ".join(f"{words[key]} {value:g}" for key, value in bounds.items())
