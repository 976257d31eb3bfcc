"""Workers: counting, retrying, going on; trials themselves are stood in for, except where a test says so."""

import copy
import signal
import threading
import time

import optuna
import pytest
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.params.load import Params, load_params
from detoxlens.params.sweep import SweepConfig
from detoxlens.sweep import study as module
from detoxlens.sweep.liveness import BEAT, HOME, Watchdog, home_of, lock_path, retry
from detoxlens.sweep.study import Sweep, num_counted, work
from detoxlens.sweep.workers import worker_command
from tests.root import ROOT


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
        root=tmp_path,
        params_path=tmp_path / "params.yaml",
        params=params,
        config=config,
        space=config.space["ppo"],
        name="s",
        method="ppo",
        models=["tiny-neox"],
        variant="rl",
        url=f"sqlite:///{tmp_path / 'o.db'}",
        definition={"objectives": {"cost": "minimize"}},
        reference=tmp_path,
        baseline={},
    )


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
        trial.set_user_attr("home", home_of(Layout(sweep.root).state))
        if trial.number == 0:
            module.watchdog(sweep).fail_abandoned(study)
    retried = sweep.open().trials[1]
    assert retried.system_attrs["failed_trial"] == 0 and retried.params == study.trials[0].params
    found, _ = run(sweep, 2)
    assert states(found) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert found[2].params != found[0].params  # twice is enough: a new point


def test_an_interruption_does_not_count_as_the_one_death(sweep, trials):
    study = sweep.open()
    trial = study.ask()
    trial.suggest_float("ppo.clip_range", 0.1, 0.2)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    retry(study, study.trials[0], max_retry=None)  # Ctrl-C
    retry(study, study.trials[1], max_retry=1)  # then a kill
    retry(study, study.trials[2], max_retry=1)  # and another: enough
    assert [t.system_attrs.get("retry_history") for t in study.trials] == [None, [], [1]]
    assert [t.system_attrs.get("failed_trial") for t in study.trials] == [None, 0, 0]


def test_a_living_workers_trial_is_left_alone_and_waited_for(sweep, trials):
    study = sweep.open()
    trial = study.ask()
    trial.suggest_float("ppo.clip_range", 0.1, 0.2)
    trial.set_user_attr("home", home_of(Layout(sweep.root).state))
    lock = FileLock(lock_path(sweep.folder, trial.number), thread_local=False)
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


def test_workers_are_told_what_to_join(sweep):
    command = worker_command(sweep, 24, track=False)
    assert command[1:3] == ["-m", "detoxlens"] and "--no-track" in command
    assert command[command.index("sweep") :] == [
        "sweep",
        "--method",
        "ppo",
        "--models",
        "tiny-neox",
        "--variant",
        "rl",
        "--trials",
        "24",
        "--study",
        "s",
        "--join",
    ]
    assert Layout(sweep.root).kept("sweeps/s") == sweep.folder


def test_metrics_of_several_models_are_averaged():
    assert module.mean([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0}


def test_a_trials_lock_is_held_until_its_outcome_is_stored(sweep, trials, monkeypatch):
    """Else another worker would fail and repeat a trial in the instant between its end and its entry."""
    from optuna import Study

    real, seen = Study.tell, []

    def tell(study, trial, *arguments, **named):
        with pytest.raises(Timeout):
            FileLock(lock_path(sweep.folder, trial.number), timeout=0).acquire()
        seen.append(trial.number)
        return real(study, trial, *arguments, **named)

    monkeypatch.setattr(Study, "tell", tell)
    run(sweep, 1)
    assert seen == [0]


@pytest.mark.parametrize("url", ["sqlite:///{}/o.db", "journal:{}/o.journal"])
def test_a_worker_elsewhere_lives_while_its_counter_rises(sweep, trials, tmp_path, url):
    """By the observer's clock: alive at first sight, alive when the counter moved, dead after some silence."""
    object.__setattr__(sweep, "url", url.format(tmp_path))
    study, dog = sweep.open(), Watchdog(sweep.folder, "here", patience_seconds=0.2)
    trial = study.ask()
    trial.suggest_float("ppo.clip_range", 0.1, 0.2)
    trial.set_user_attr(HOME, "elsewhere")
    lock_path(sweep.folder, trial.number).touch()  # of another study's trial of that number, long ago
    for beat in range(3):
        dog.fail_abandoned(study)
        assert states(study.trials) == ["RUNNING"]
        time.sleep(0.15)
        trial.set_user_attr(BEAT, beat)
    dog.fail_abandoned(study)
    time.sleep(0.3)
    dog.fail_abandoned(study)
    assert states(study.trials) == ["FAIL", "WAITING"]
    dog.fail_abandoned(study)
    assert states(study.trials) == ["FAIL", "WAITING"]  # once


def test_a_running_trial_shows_its_home_and_beats(sweep, trials, monkeypatch):
    object.__setattr__(sweep.config, "heartbeat_seconds", 0.02)
    real = module.run_trial
    monkeypatch.setattr(module, "run_trial", lambda *a, **b: time.sleep(0.3) or real(*a, **b))
    (found,) = run(sweep, 1)[0]
    assert found.user_attrs[HOME] == home_of(Layout(sweep.root).state) and found.user_attrs[BEAT] >= 3


def test_a_worker_wrongly_taken_for_dead_counts_once(sweep, trials, monkeypatch, caplog):
    """Its trial is failed and queued by another while it works: its own result is dropped, the point tried again."""
    real = module.run_trial

    def run_trial(root, folder, *arguments, **named):
        if folder.name == "trial-00000":
            study = sweep.open()
            study.tell(0, state=TrialState.FAIL)
            retry(study, study.trials[0], max_retry=1)
        return real(root, folder, *arguments, **named)

    monkeypatch.setattr(module, "run_trial", run_trial)
    found, _ = run(sweep, 2)
    assert states(found) == ["FAIL", "COMPLETE", "COMPLETE"] and found[1].params == found[0].params
    assert "trial 0: this worker was taken for dead" in caplog.text


def test_an_outcome_that_is_known_is_not_tried_again(sweep, trials):
    """A worker that dies between giving its reason and ending the trial."""
    study = sweep.open()
    trial = study.ask()
    trial.suggest_float("ppo.clip_range", 0.1, 0.2)
    trial.set_user_attr(HOME, home_of(Layout(sweep.root).state))
    trial.set_user_attr("reason", "the KL exploded")
    found, _ = run(sweep, 2)
    assert states(found) == ["FAIL", "COMPLETE"] and num_counted(sweep.open()) == 2


def test_a_storage_that_goes_away_ends_the_worker_with_one_paragraph(sweep, trials, monkeypatch):

    def gone(*_, **__):
        raise optuna.exceptions.StorageInternalError("server closed the connection")

    monkeypatch.setattr(module, "run_trial", gone)
    with pytest.raises(UserError, match=r"--storage sqlite:.* cannot be used: server closed the connection"):
        run(sweep, 1)


def test_the_present_params_are_trial_0_of_a_new_study_and_of_no_other(sweep, trials):
    found, _ = run(sweep, 2)
    assert found[0].params == {"ppo.clip_range": 0.2} != found[1].params  # as in params.yaml
    assert [t.params for t in run(sweep, 4)[0]].count({"ppo.clip_range": 0.2}) == 1
