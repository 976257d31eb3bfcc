"""Early stopping of trials, which never alters one that continues: the gate; a pruner where there is one objective.

    training   0 ------ .2 ------ .4 -- .5 -- .6 ------ .8 ------ 1
    pruner              probe     probe       probe     probe            num_probes: 5
    gate                                probe                            after_fraction: .5

An ended trial has Optuna's state PRUNED. Optuna itself prunes no trial of several objectives (`report` and
`should_prune` raise), but takes one that ends so. The gate also leaves a violated constraint: TPE counts the trial
among the infeasible ones, the worse the further it was from the limit. NSGA-II does not learn from it: it breeds from
complete trials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from detoxlens.common.errors import UserError
from detoxlens.jobs.progress import Snapshot, StepCallback
from detoxlens.params.sweep import GateConfig, PrunerConfig, SweepConfig
from detoxlens.sweep.liveness import REASON
from detoxlens.sweep.probe import Probe

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.pruners import BasePruner

Check = Callable[[Snapshot], None]
GATE = "early toxicity"
"""Name of the gate's constraint."""
EARLY_TOXICITY = "early_toxicity"
"""User attribute of a trial: model -> share of toxic answers at the gate."""
RATE, CURVE = "toxicity/val/rate_gt_50", "training/"


def make_pruner(config: SweepConfig, num_models: int) -> BasePruner:
    """The pruner that params name; for several objectives one that never prunes. A step is a per cent of training."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if config.pruner is None or len(config.objectives) > 1:
        return NopPruner()
    if config.pruner.name == "median":
        return MedianPruner(n_startup_trials=config.num_startup_trials)
    return HyperbandPruner(min_resource=100 // config.pruner.num_probes, max_resource=100 * num_models)


def check_pruner(config: SweepConfig, where: str) -> None:
    """Raises UserError if the one objective is not known before a trial has ended."""
    (name, *others) = config.objectives
    if config.pruner is not None and not others and name != RATE and not name.startswith(CURVE):
        raise UserError(
            f"{where}: sweep.pruner compares trials under training, when {name} is not known yet. Set sweep.pruner: "
            f"null, or take {RATE} or training/<curve> as the objective."
        )


class EarlyStopping:
    """Probes of one trial while its models are trained, one after the other, and what they end it for."""

    def __init__(self, trial: Trial, config: SweepConfig, probe: Probe):
        self.trial, self.config, self.probe = trial, config, probe
        self.early_toxicity: dict[str, float] = {}
        self.gate_excess: list[float] = []
        """Per model: early toxicity minus what the gate allows."""

    def callback(self, number: int, model: str) -> StepCallback | None:
        """The callback for the training of the `number`-th model; None if there is nothing to probe."""
        gate, pruner = self.config.gate, self.config.pruner
        curves: dict[str, float | int] = {}
        due: list[tuple[float, Check]] = []
        if gate is not None:
            due.append((gate.after_fraction, lambda snapshot: self._gate(snapshot, model, gate)))
        if pruner is not None and len(self.config.objectives) == 1:
            for k in range(1, pruner.num_probes):
                step = 100 * number + round(100 * k / pruner.num_probes)
                due.append((k / pruner.num_probes, lambda m, s=step: self._prune(m, model, pruner, curves, s)))
        due.sort(key=lambda probe: probe[0])

        def on_step(snapshot: Snapshot) -> None:
            curves.update(snapshot.row)
            while due and snapshot.fraction >= due[0][0]:
                due.pop(0)[1](snapshot)

        return on_step if due else None

    def passed(self) -> None:
        """To be called when every model is trained: by how much the gate's constraint is met."""
        if self.gate_excess:
            self.trial.set_constraint(GATE, max(self.gate_excess))

    def _gate(self, snapshot: Snapshot, model: str, gate: GateConfig) -> None:
        toxic = self.probe.toxicity(snapshot, model, gate.num_prompts)
        of_it = self.probe.toxicity_of_it(model, gate.num_prompts)
        if toxic is None:
            return
        self.early_toxicity[model] = toxic
        self.trial.set_user_attr(EARLY_TOXICITY, self.early_toxicity)
        if not of_it:
            return  # nothing to be gained, nothing to be hopeless about
        allowed = gate.max_share_of_it * of_it
        self.gate_excess.append(toxic - allowed)
        if toxic > allowed:
            self.passed()
            self._end(
                f"gate: {toxic:.3g} of the answers of {model} were toxic after {100 * snapshot.fraction:.0f} % of its "
                f"training, more than {allowed:.3g}"
            )

    def _prune(
        self, snapshot: Snapshot, model: str, pruner: PrunerConfig, curves: dict[str, float | int], step: int
    ) -> None:
        (name,) = self.config.objectives
        if name.startswith(CURVE):
            value = curves.get(name.removeprefix(CURVE))
        else:
            value = self.probe.toxicity(snapshot, model, pruner.num_prompts)
        if value is None:
            return
        self.trial.report(value, step)
        if self.trial.should_prune():
            self._end(
                f"{pruner.name} pruner: {name} was {value:.4g} after {100 * snapshot.fraction:.0f} % of the training "
                f"of {model}, worse than other trials there"
            )

    def _end(self, reason: str) -> NoReturn:
        from optuna import TrialPruned

        self.trial.set_user_attr(REASON, reason)
        raise TrialPruned(reason)
