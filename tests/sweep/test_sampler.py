"""Points depend on the study's seed and the trial's number, not on who asks."""

import optuna
import pytest

from detoxlens.params.load import load_params
from detoxlens.params.section import parse
from detoxlens.params.sweep import SweepConfig
from detoxlens.sweep.sampler import make_sampler
from tests.root import ROOT


def config(**changes):
    raw = load_params(ROOT / "params.yaml").raw["sweep"]
    return parse(SweepConfig, raw | {"num_startup_trials": 3} | changes, "sweep")


def objective(trial):
    x, y = trial.suggest_float("x", -1, 1), trial.suggest_float("y", -1, 1)
    trial.set_constraint("x", -x)  # feasible: x >= 0
    return x * x + y * y, (x - 1) ** 2 + y * y


def points(num_trials, *, workers=1, seed=0, sampler="tpe"):
    """The points of a study that `workers` sampler objects take turns at."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage, directions=["minimize", "minimize"])
    joined = [
        optuna.load_study(study_name="s", storage=storage, sampler=make_sampler(config(seed=seed, sampler=sampler)))
        for _ in range(workers)
    ]
    for n in range(num_trials):
        joined[n % workers].optimize(objective, n_trials=1)
    return [tuple(t.params.values()) for t in joined[0].trials]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_workers_and_restarts_do_not_repeat_or_change_a_point(sampler):
    alone = points(8, sampler=sampler)
    assert len(set(alone)) == 8 or sampler == "nsga2"  # a child of two parents may be the image of one
    assert len(set(alone)) > 4
    assert points(8, workers=3, sampler=sampler) == alone  # a worker more, or a process begun anew, changes nothing
    assert points(8, seed=1, sampler=sampler) != alone


def test_tpe_learns_the_constraint():
    x = [x for x, _ in points(30)]
    assert sum(v >= 0 for v in x[15:]) >= 12  # by chance 7 or 8
