"""Workers: counting, retrying, going on; trials themselves are stood in for, except where a test says so."""

import copy
import signal
import threading

import pytest

from detoxlens.artifacts import Layout
from detoxlens.config import Params, load_params
from detoxlens.errors import UserError
from detoxlens.sweep import study as module
from detoxlens.sweep.config import SweepConfig
from detoxlens.sweep.study import Sweep, lock_path, num_counted, work
from tests.import_graph import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed:UserWarning")  # of `ask` in tests


@pytest.fixture
def sweep(tmp_path):
    """A sweep over one number; nothing of it is on disk but the study."""
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["sweep"] |= {
        "objectives": {"cost": "minimize"},
        "constraints": {"length": {"max": 1.5}},
        "space": {"ppo": {"ppo.clip_range": {"type": "float", "low": 0.1, "high": 0.2}}},
    }
    params = Params(raw)
    config = params.section("sweep", SweepConfig)
    return Sweep(
        root=tmp_path, params_path=tmp_path / "params.yaml", params=params, config=config, space=config.space["ppo"],
        name="s", method="ppo", models=["tiny-neox"], variant="rl", url=f"sqlite:///{tmp_path / 'o.db'}",
        definition={"objectives": {"cost": "minimize"}}, reference=tmp_path, baseline={},
    )  # fmt: skip


@pytest.fixture
def trials(monkeypatch, sweep):
    """What `run_trial` does, by its call: an exception is raised, a dict is returned, no entry is a plain success."""
    sweep.folder.mkdir(parents=True)
    plan, seen = {}, []

    def run_trial(root, folder, reference, params, **_):
        clip = params.raw["variants"]["rl"]["overrides"]["ppo"]["clip_range"]
        seen.append((folder.name, clip))
        found = plan.get(len(seen) - 1, {"cost": clip, "length": 10 * clip})
        if isinstance(found, BaseException):
            raise found
        return {"tiny-neox": found}

    monkeypatch.setattr(module, "run_trial", run_trial)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    plan["seen"] = seen
    return plan


def run(sweep, num_trials):
    told = []
    work(sweep, num_trials=num_trials, on_trial=lambda study, number: told.append(number))
    return sweep.open().trials, told


def states(trials):
    return [t.state.name for t in trials]


def test_a_study_ends_with_its_trials_and_goes_on_when_asked_for_more(sweep, trials):
    found, told = run(sweep, 2)
    assert states(found) == ["COMPLETE"] * 2 and told == [0, 1]
    assert run(sweep, 2)[1] == []
    assert [t.number for t in run(sweep, 3)[0]] == [0, 1, 2]
    assert found[0].user_attrs["metrics"]["cost"] == found[0].values[0] == found[0].params["ppo.clip_range"]
    assert found[0].constraints == {"length <= 1.5": pytest.approx(10 * found[0].values[0] - 1.5)}


def test_a_point_that_cannot_be_trained_counts_and_says_why(sweep, trials):
    trials[1] = UserError("ppo step 3: the KL exploded.")
    trials[2] = {"length": 1.0}  # every completion was empty
    found, told = run(sweep, 4)
    assert states(found) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"] and told == [0, 1, 2, 3]
    assert found[1].user_attrs["reason"] == "ppo step 3: the KL exploded."
    assert "cost could not be measured" in found[2].user_attrs["reason"]


def test_five_failures_in_a_row_from_the_start_end_the_sweep(sweep, trials):
    trials.update({n: UserError("no such layer") for n in range(9)})
    with pytest.raises(UserError, match="all 5 trials failed, the last with: no such layer"):
        run(sweep, 9)


def test_ctrl_c_leaves_no_trial_running_and_the_point_is_tried_again(sweep, trials):
    trials[1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(sweep, 3)
    assert states(sweep.open().trials) == ["COMPLETE", "FAIL", "WAITING"]
    found, _ = run(sweep, 3)
    assert states(found) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert found[2].params == found[1].params and num_counted(sweep.open()) == 3
    assert [clip for _, clip in trials["seen"]][1:3] == [found[1].params["ppo.clip_range"]] * 2


@pytest.mark.parametrize("url", ["sqlite:///{}/o.db", "journal:{}/o.journal"])
def test_a_dead_workers_trial_is_failed_and_tried_once_more(sweep, trials, tmp_path, url):
    object.__setattr__(sweep, "url", url.format(tmp_path))
    study = sweep.open()
    for _ in range(2):  # begun by a process that is gone: its lock is free
        trial = study.ask()
        trial.suggest_float("ppo.clip_range", 0.1, 0.2)
        lock_path(sweep.folder, trial.number).touch()
        if trial.number == 0:
            module.retry_abandoned(study, sweep.folder)
    retried = sweep.open().trials[1]
    assert retried.system_attrs["failed_trial"] == 0 and retried.params == study.trials[0].params
    found, _ = run(sweep, 2)
    assert states(found) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert found[2].params != found[0].params  # twice is enough: a new point


def test_a_living_workers_trial_is_left_alone_and_waited_for(sweep, trials):
    study = sweep.open()
    trial = study.ask()
    trial.suggest_float("ppo.clip_range", 0.1, 0.2)
    lock = module.FileLock(lock_path(sweep.folder, trial.number), thread_local=False)
    lock.acquire()

    def ends():
        study.tell(trial.number, 0.5)
        lock.release()

    timer = threading.Timer(0.4, ends)
    timer.start()
    found, told = run(sweep, 2)
    timer.join()
    assert states(found) == ["COMPLETE", "COMPLETE"] and told == [1]


def test_sigterm_ends_a_sweep_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), module.sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_metrics_of_several_models_are_averaged():
    assert module.mean([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0}


def test_workers_are_told_what_to_join(sweep):
    command = module.worker_command(sweep, 24, track=False)
    assert command[1:3] == ["-m", "detoxlens"] and "--no-track" in command
    assert command[command.index("sweep") :] == [
        "sweep", "--method", "ppo", "--models", "tiny-neox", "--variant", "rl", "--trials", "24", "--study", "s",
        "--storage", sweep.url, "--join",
    ]  # fmt: skip
    assert Layout(sweep.root).state / "sweeps/s" == sweep.folder


def test_a_trials_lock_is_held_until_its_outcome_is_stored(sweep, trials, monkeypatch):
    """Else another worker would fail and repeat a trial in the instant between its end and its entry."""
    from optuna.study import _optimize

    real, seen = _optimize._tell_with_warning, []

    def tell(study, trial, **arguments):
        with pytest.raises(module.Timeout):
            module.FileLock(lock_path(sweep.folder, trial.number), timeout=0).acquire()
        seen.append(trial.number)
        return real(study=study, trial=trial, **arguments)

    monkeypatch.setattr(_optimize, "_tell_with_warning", tell)
    run(sweep, 1)
    assert seen == [0]
