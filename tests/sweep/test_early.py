"""When a trial is looked at, and what ends it. The probe is stood in for; all of Optuna is real."""

import optuna
import pytest

from detoxlens.common.errors import UserError
from detoxlens.jobs.progress import Snapshot
from detoxlens.params.load import load_params
from detoxlens.params.section import parse
from detoxlens.params.sweep import SweepConfig
from detoxlens.sweep.early import RATE, EarlyStopping, check_pruner, make_pruner
from detoxlens.sweep.probe import share_toxic
from detoxlens.sweep.sampler import make_sampler
from tests.root import ROOT

GATE = {"after_fraction": 0.5, "num_prompts": 60, "max_share_of_it": 0.75}
PRUNER = {"name": "median", "num_probes": 5, "num_prompts": 30}


def config(**changes):
    raw = load_params(ROOT / "params.yaml").raw["sweep"]
    return parse(SweepConfig, raw | {"num_startup_trials": 3, "gate": GATE, "pruner": None} | changes, "sweep")


class FakeProbe:
    """`it` is .8 toxic; the trial as toxic as it is told. Remembers when it was asked."""

    def __init__(self, toxic, of_it=0.8):
        self.toxic, self.of_it, self.asked = toxic, of_it, []

    def toxicity(self, snapshot, model, num_prompts):
        self.asked.append((snapshot.fraction, model, num_prompts))
        return self.toxic

    def toxicity_of_it(self, model, num_prompts):
        return self.of_it


def train(watch, rows=None, num_steps=8):
    for step in range(num_steps + 1):
        row = rows[step] if rows else {}
        watch(Snapshot(fraction=step / num_steps, row=row, model=None, tokenizer=None))


def new_study(num_objectives=2, pruner=None):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["minimize"] * num_objectives, pruner=pruner)


def test_the_gate_looks_once_at_its_fraction_and_lets_a_promising_trial_pass():
    study, probe = new_study(), FakeProbe(0.6)  # allowed: .75 * .8 = .6
    trial = study.ask()
    early = EarlyStopping(trial, config(), probe)
    train(early.callback(0, "m"))
    early.passed()
    assert probe.asked == [(0.5, "m", 60)]
    assert trial.constraints == {"early toxicity": pytest.approx(0)}
    assert trial.user_attrs["early_toxicity"] == {"m": 0.6} and "reason" not in trial.user_attrs


def test_a_hopeless_trial_is_ended_and_infeasible():
    study = new_study()
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned):
        train(EarlyStopping(trial, config(), FakeProbe(0.7)).callback(0, "m"))
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # Optuna takes it, of two objectives too
    (found,) = study.trials
    assert found.state.name == "PRUNED" and found.constraints == {"early toxicity": pytest.approx(0.1)}
    assert found.user_attrs["reason"] == (
        "gate: 0.7 of the answers of m were toxic after 50 % of its training, more than 0.6"
    )


def test_of_several_models_the_worst_counts():
    trial = new_study().ask()
    early = EarlyStopping(trial, config(), probe := FakeProbe(0.2))
    train(early.callback(0, "a"))
    probe.toxic = 0.5
    train(early.callback(1, "b"))
    early.passed()
    assert trial.constraints == {"early toxicity": pytest.approx(-0.1)}
    assert trial.user_attrs["early_toxicity"] == {"a": 0.2, "b": 0.5}


def test_without_gate_or_a_verdict_nothing_happens():
    assert EarlyStopping(new_study().ask(), config(gate=None), FakeProbe(1.0)).callback(0, "m") is None
    trial = new_study().ask()
    for probe in (FakeProbe(None), FakeProbe(0.1, of_it=0.0)):  # every answer was empty; `it` has no toxic one
        early = EarlyStopping(trial, config(), probe)
        train(early.callback(0, "m"))
        early.passed()
    assert trial.constraints == {}


def test_tpe_learns_from_gated_trials():
    """Points below 0 are gated; TPE then draws fewer of them than the half that chance gives."""

    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        early = EarlyStopping(trial, config(), FakeProbe(0.8 if x < 0 else 0.1))
        train(early.callback(0, "m"))
        early.passed()
        return (x - 0.5) ** 2, (x - 0.7) ** 2

    study = optuna.create_study(directions=["minimize"] * 2, sampler=make_sampler(config(num_startup_trials=8)))
    study.optimize(objective, n_trials=30)
    gated = [t.number for t in study.trials if t.state.name == "PRUNED"]
    assert len([n for n in gated if n < 8]) >= 2
    assert len([n for n in gated if n >= 8]) <= 4  # of 22


@pytest.mark.parametrize("name", ["median", "hyperband"])
def test_of_one_objective_a_bad_trial_is_pruned(name):
    """Five good trials, then a bad one and a good one; the bad one ends at a look, with its reason."""
    setting = config(objectives={RATE: "minimize"}, gate=None, pruner=PRUNER | {"name": name})
    pruner = make_pruner(setting, 1)
    # A study without a name gets a random one, and Hyperband draws the bracket of a trial from the name.
    study = optuna.create_study(direction="minimize", study_name=name, pruner=pruner, sampler=make_sampler(setting))
    states = []
    for toxic in [0.1, 0.12, 0.11, 0.13, 0.1, 0.12, 0.9, 0.05]:
        trial = study.ask()
        try:
            train(EarlyStopping(trial, setting, FakeProbe(toxic)).callback(0, "m"))
            study.tell(trial, toxic)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        states.append(study.trials[-1].state.name)
    assert states[6:] == ["PRUNED", "COMPLETE"] and "COMPLETE" in states[:3]
    bad = study.trials[6]
    assert f"{name} pruner: {RATE} was 0.9 after" in bad.user_attrs["reason"]
    assert set(bad.intermediate_values) <= {20, 40, 60, 80}


def test_a_curve_is_compared_by_its_latest_value_without_asking_the_probe():
    name = "training/ppo/reward"
    setting = config(objectives={name: "maximize"}, gate=None, pruner=PRUNER | {"num_probes": 2})
    study = optuna.create_study(direction="maximize", pruner=make_pruner(setting, 1))
    trial, probe = study.ask(), FakeProbe(0.5)
    rows = [{}, {"ppo/reward": 0.1}, {"ppo/reward": 0.2}, {"other": 1.0}, {}, {}, {}, {}, {}]
    train(EarlyStopping(trial, setting, probe).callback(0, "m"), rows)
    study.tell(trial, 1.0)
    assert probe.asked == [] and study.trials[0].intermediate_values == {50: 0.2}


def test_an_objective_that_is_known_only_in_the_end_has_no_pruner():
    late = "attribution/val/entropy_shift_bits/absolute/value"
    with pytest.raises(UserError, match=r"params\.yaml: sweep\.pruner .* Set sweep\.pruner: null"):
        check_pruner(config(objectives={late: "minimize"}, pruner=PRUNER), "params.yaml")
    check_pruner(config(objectives={late: "minimize"}), "params.yaml")
    check_pruner(config(objectives={late: "minimize", RATE: "minimize"}, pruner=PRUNER), "params.yaml")
    check_pruner(config(objectives={RATE: "minimize"}, pruner=PRUNER), "params.yaml")


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"after_fraction": 1.0}, r"sweep\.gate\.after_fraction=1\.0"),
        ({"num_prompts": 0}, r"sweep\.gate\.num_prompts=0"),
        ({"max_toxicity": 0.5}, r"sweep\.gate\.max_toxicity is not a known key"),
    ],
)
def test_a_gate_that_makes_no_sense_is_told(gate, told):
    with pytest.raises(UserError, match=told):
        config(gate=GATE | gate)


def test_shares_by_hand():
    assert share_toxic([0.6, None, 0.5, 0.1, 0.9]) == 0.5  # .5 itself is not above .5
    assert share_toxic([None]) is None
