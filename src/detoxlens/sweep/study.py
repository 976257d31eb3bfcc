"""Workers that join a study by name and try points until it has its trials.

A trial counts when it is complete, was ended early, or is of a point that cannot be trained (`reason`). One whose
worker died or was interrupted does not: it is failed and queued again (liveness.py).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.data.sources import sha256_of
from detoxlens.params.load import Params
from detoxlens.params.report import ReportConfig
from detoxlens.params.sweep import Method, SweepConfig, as_stored
from detoxlens.params.toxicity import RECORDED
from detoxlens.sweep.early import EarlyStopping, check_pruner, make_pruner
from detoxlens.sweep.liveness import HOME, REASON, Heart, Watchdog, home_of, lock_path, retry, running
from detoxlens.sweep.probe import Probe
from detoxlens.sweep.space import choose_variant, committed_point, decode, params_at, space_of, suggest
from detoxlens.sweep.storage import absolute, close, default_url, explain_storage_errors, open_storage, open_study
from detoxlens.sweep.trial import AS_IF_TRAINED, check_metrics, make_reference, run_trial, val_metrics

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)
GIVE_UP_AFTER = 5
"""Trials at a study's start that all failed: then it is not the points that are wrong."""
POLL_SECONDS = 2.0


class HopelessPointError(Exception):
    """The point cannot be trained or measured (its `reason` is noted); the sweep continues."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep, checked and ready to run; made by `plan`."""

    root: Path
    params_path: Path
    params: Params
    config: SweepConfig
    space: Mapping[str, Any]
    name: str
    method: Method
    models: Sequence[str]
    variant: str
    url: str
    definition: Mapping[str, Any]
    reference: Path
    baseline: Mapping[str, float]
    """The metrics of `it`, averaged over models."""

    @property
    def first(self) -> dict[str, Any] | None:
        """Trial 0: the present params, where they lie in the space."""
        point = committed_point(self.params, self.space, self.models, self.variant)
        return None if point is None else {name: as_stored(value) for name, value in point.items()}

    @property
    def folder(self) -> Path:
        return Layout(self.root).kept("sweeps", self.name)

    def open(self) -> Study:
        """The study, with the sampler; UserError where it cannot be reached or is another one."""
        from detoxlens.sweep.sampler import make_sampler

        state = Layout(self.root).state
        return open_study(
            open_storage(self.url, state),
            self.url,
            self.name,
            state,
            definition=self.definition,
            sampler=make_sampler(self.config),
            pruner=make_pruner(self.config, len(self.models)),
            first=self.first,
        )


def plan(
    root: Path,
    params_path: Path,
    params: Params,
    *,
    method: Method,
    models: Sequence[str],
    variant: str | None,
    name: str | None,
    url: str | None,
) -> Sweep:
    """Checks everything that can be checked before the first trial, cheap things first.

    Raises:
        UserError: what is wrong, where.
    """
    config = params.section("sweep", SweepConfig)
    models = list(models) or params.run.models
    for model in models:
        params.model(model)
    variant = choose_variant(params, method, variant)
    space = space_of(config, params, method, models, variant)
    name = name or "-".join([method, *models])
    if not all(c.isalnum() or c in "-_." for c in name) or not name[0].isalnum():
        raise UserError(f"--study {name!r}: letters, digits, '-', '_' and '.' make a name; it becomes a folder's.")
    definition = definition_of(root, params, config, space, method=method, models=models, variant=variant)
    layout = Layout(root)
    url = absolute(url or default_url(root))
    check_pruner(config, params.path)
    close(open_storage(url, layout.state))  # unreachable: said before the work
    reference = make_reference(root, layout.kept("sweeps", name), params, models)
    by_model = [val_metrics(reference, params, model, AS_IF_TRAINED, stand_in=True) for model in models]
    check_metrics(config, by_model[0], params.path)
    return Sweep(
        root=root,
        params_path=params_path,
        params=params,
        config=config,
        space=space,
        name=name,
        method=method,
        models=models,
        variant=variant,
        url=url,
        definition=definition,
        reference=reference,
        baseline=mean(by_model),
    )


def definition_of(
    root: Path,
    params: Params,
    config: SweepConfig,
    space: Mapping[str, Any],
    *,
    method: Method,
    models: Sequence[str],
    variant: str,
) -> dict[str, Any]:
    """All that makes two trials comparable: what is searched and wanted, and every other setting and input."""
    return {
        "objectives": dict(config.objectives),
        "constraints": {k: v.model_dump(exclude_none=True) for k, v in config.constraints.items()},
        "space": {name: distribution.model_dump(mode="json") for name, distribution in space.items()},
        "sampler": {"name": config.sampler, "seed": config.seed, "num_startup_trials": config.num_startup_trials},
        "method": method,
        "variant": variant,
        **setting_of(root, params, list(space), models=models, variant=variant),
    }


def setting_of(
    root: Path, params: Params, swept: Sequence[str], *, models: Sequence[str], variant: str
) -> dict[str, Any]:
    """What, besides its point, decides a trial's numbers: the params that are not swept, the data and the models."""
    from detoxlens.tracking import comparable_params, dvc_md5

    settings = {}
    report = params.section("report", ReportConfig).model_dump(include={"primary_split", "min_sequences_per_step"})
    for model in models:
        settings[model] = comparable_params(params, model=model, variant=variant)
        settings[model]["report"] = report  # which prompts and steps `val` metrics are of
        settings[model]["variant"].pop("overrides", None)  # they are merged into their sections
        for path in swept:
            *parents, last = path.split(".")
            node = settings[model]
            for key in parents:
                node = node.get(key, {})
            node.pop(last, None)
    layout, starts = Layout(root), params.made_of(variant) or ["it"]
    files = [layout.prompts, layout.dialogues, *sorted((root / RECORDED).rglob("*.*"))]
    inputs = {path.name: sha256_of(path)[:16] for path in files if path.is_file()}
    read = [layout.reward_model]
    read += [path for m in models for path in (layout.base(m), *(layout.adapter(m, start) for start in starts))]
    inputs |= {path.relative_to(root).as_posix(): dvc_md5(path)[:16] for path in read if path.is_dir()}
    return {"settings": settings, "inputs": inputs}


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """A polite kill, or a closed terminal, ends a sweep as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    polite = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in polite if signal.getsignal(number) != signal.SIG_IGN]  # nohup's stays
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(sweep: Sweep, *, num_trials: int, on_trial: Callable[[Study, int], None]) -> None:
    """Tries points until the study has `num_trials`; `on_trial` is called with the number of each that ended here.

    Workers on several machines may each begin a last trial at the same instant: then there is one more.
    """
    study, dog = sweep.open(), watchdog(sweep)
    with explain_storage_errors(sweep.url, opening=False):
        while True:
            number = try_one(sweep, study, num_trials=num_trials, dog=dog)
            if number is not None:
                on_trial(study, number)
                log_trial(study, number, num_trials)
            elif num_counted(study) >= num_trials:
                return
            else:
                time.sleep(POLL_SECONDS)  # the last ones are being tried by others, who may die


def watchdog(sweep: Sweep) -> Watchdog:
    return Watchdog(sweep.folder, home_of(Layout(sweep.root).state), 3 * sweep.config.heartbeat_seconds)


def try_one(sweep: Sweep, study: Study, *, num_trials: int, dog: Watchdog) -> int | None:
    """Tries the next point; returns its trial's number, or None if those under way are enough."""
    queue = FileLock(sweep.folder / "queue.lock")
    with contextlib.ExitStack() as waiting:
        waiting.enter_context(queue)  # released when the trial exists, so that it is counted by the next in the queue
        dog.fail_abandoned(study)
        num_running = len(running(study))  # before counting: one that ends in between is counted twice, not never
        if num_counted(study) + num_running >= num_trials:
            return None
        give_up_if_all_fail(study, sweep.name)
        return run_one(sweep, study, waiting)


def run_one(sweep: Sweep, study: Study, waiting: contextlib.ExitStack) -> int:
    """Tries one point, leaving the queue once its trial exists; returns the trial's number."""
    from optuna import TrialPruned
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    trial = study.ask()
    with FileLock(lock_path(sweep.folder, trial.number)), Heart(trial, sweep.config.heartbeat_seconds):
        trial.set_user_attr(HOME, home_of(Layout(sweep.root).state))
        waiting.close()
        end = functools.partial(study.tell, trial, skip_if_finished=True)
        try:
            end(measure(sweep, trial))
        except TrialPruned:
            end(state=TrialState.PRUNED)
        except HopelessPointError:
            end(state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            log.warning("trial %d: this worker was taken for dead, and others try the point again", trial.number)
        except BaseException as e:
            ended = end(state=TrialState.FAIL)
            if isinstance(e, KeyboardInterrupt) and ended.state == TrialState.FAIL:
                retry(study, ended, max_retry=None)
            raise
    return trial.number


def measure(sweep: Sweep, trial: Trial) -> list[float]:
    """The objectives of the sampler's point; its metrics and constraints go into the trial."""
    from detoxlens.sweep.sampler import trial_seed

    point = suggest(trial, sweep.space)
    trial.set_user_attr("sampler_seed", trial_seed(sweep.config.seed, trial.number))
    params = params_at(sweep.params, sweep.variant, point)
    early = EarlyStopping(trial, sweep.config, Probe(sweep.root, sweep.reference, params, sweep.variant))
    try:
        by_model = run_trial(
            sweep.root,
            sweep.folder / f"trial-{trial.number:05d}",
            sweep.reference,
            params,
            method=sweep.method,
            models=sweep.models,
            variant=sweep.variant,
            callback_of=early.callback,
        )
        early.passed()
        metrics = mean(list(by_model.values()))
        trial.set_user_attr("metrics", metrics)
        for name, bounds in sweep.config.constraints.items():
            value = metric(metrics, name)
            if bounds.min is not None:
                trial.set_constraint(f"{name} >= {bounds.min:g}", bounds.min - value)
            if bounds.max is not None:
                trial.set_constraint(f"{name} <= {bounds.max:g}", value - bounds.max)
        return [metric(metrics, name) for name in sweep.config.objectives]
    except UserError as e:
        trial.set_user_attr(REASON, str(e))
        raise HopelessPointError(str(e)) from e


def mean(by_model: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each metric averaged over the models that all report it."""
    shared = [name for name in by_model[0] if all(name in metrics for metrics in by_model)]
    return {name: sum(metrics[name] for metrics in by_model) / len(by_model) for name in shared}


def metric(metrics: Mapping[str, float], name: str) -> float:
    """Raises UserError where a trial has no such number, e.g. because every completion is empty."""
    if name not in metrics:
        raise UserError(f"{name} could not be measured; the trial reports {', '.join(sorted(metrics))}.")
    return metrics[name]


def num_counted(study: Study) -> int:
    """Trials that are done: complete, ended early, or of a point that cannot be trained."""
    return len(_ended(study))


def _ended(study: Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state.name == "COMPLETE" or (t.state.is_finished() and REASON in t.user_attrs)]


def give_up_if_all_fail(study: Study, name: str) -> None:
    """Raises UserError when the first `GIVE_UP_AFTER` trials, and all since, could not be trained."""
    ended = _ended(study)
    if len(ended) >= GIVE_UP_AFTER and all(t.state.name == "FAIL" for t in ended):
        raise UserError(
            f"--study {name}: all {len(ended)} trials failed, the last with: {ended[-1].user_attrs[REASON]}"
        )


def log_trial(study: Study, number: int, num_trials: int) -> None:
    """One line per trial, with the time the rest will take."""
    trial = study.trials[number]
    done = num_counted(study)
    if trial.state.name != "COMPLETE":
        said = trial.user_attrs.get(REASON, "failed, see above")
    else:
        said = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(study.metric_names or (), trial.values, strict=True)
        )
        said += "" if all(v <= 0 for v in trial.constraints.values()) else " (infeasible)"
    seconds = [t.duration.total_seconds() for t in study.trials if t.duration is not None]
    left = max(0, num_trials - done) * sum(seconds) / len(seconds) / max(1, len(running(study)) + 1)
    log.info("trial %d, %d of %d done, about %.0f min left: %s", number, done, num_trials, left / 60, said)


def point_of(sweep_definition: Mapping[str, Any], trial: FrozenTrial) -> dict[str, Any]:
    """The trial's point in the values that params.yaml takes."""
    from detoxlens.params.section import parse
    from detoxlens.params.sweep import Choices

    space = {
        name: parse(Choices, d, name) if d["type"] == "categorical" else d
        for name, d in sweep_definition["space"].items()
    }
    return decode(trial.params, space)
