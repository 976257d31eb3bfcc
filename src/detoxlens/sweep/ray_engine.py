"""Trials as Ray tasks: the study stays where it is, and Ray decides where and on which share of a GPU each is tried.

A task is `study.try_one`, what a local worker repeats: the same functions, seeds and thread count, so the same bytes.
Every node sees the project's files at the same path and reaches the storage; on several nodes, take PostgreSQL.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.errors import UserError
from detoxlens.sweep.study import POLL_SECONDS, Sweep, num_counted, tell, try_one, watchdog

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)
PASSED_ON = ("PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_OFFLINE")
"""Of the environment, what decides bytes, speed or where things are."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What Ray sets aside for one trial."""

    num_cpus: float
    num_gpus: float
    """.25 puts four trials on a GPU."""


def run_on_ray(
    sweep: Sweep, *, num_trials: int, num_at_once: int, resources: Resources, on_trial: Callable[[Study, int], None]
) -> None:
    """Runs the study to `num_trials` counted trials, at most `num_at_once` at a time.

    A cluster named by RAY_ADDRESS is joined; otherwise one is started on this machine.

    Raises:
        UserError: Ray is not installed, the cluster cannot give a trial its resources, or a task failed.
    """
    ray = _ray()
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    ray.init(
        include_dashboard=False, logging_level=logging.ERROR, configure_logging=False,
        runtime_env={"env_vars": environment},
    )  # fmt: skip
    try:
        _check_fits([node["Resources"] for node in ray.nodes() if node["Alive"]], resources)
        task = ray.remote(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, max_retries=0)(_try_one)
        _keep_busy(ray, task, sweep, num_trials=num_trials, num_at_once=num_at_once, on_trial=on_trial)
    finally:
        ray.shutdown()


def _keep_busy(ray, task, sweep: Sweep, *, num_trials: int, num_at_once: int, on_trial) -> None:
    study, dog = sweep.open(), watchdog(sweep)
    under_way: list = []
    try:
        while under_way or num_counted(study) < num_trials:
            while len(under_way) < min(num_at_once, num_trials - num_counted(study)):
                under_way.append(task.remote(sweep, num_trials))
            ended, under_way = ray.wait(under_way, timeout=POLL_SECONDS)
            for reference in ended:
                number = _outcome(ray, reference)
                if number is None:
                    time.sleep(POLL_SECONDS)  # others are at the last ones
                    continue
                on_trial(study, number)
                tell(study, number, num_trials)
            dog.fail_abandoned(study)
    except KeyboardInterrupt:
        for reference in under_way:
            ray.cancel(reference)  # a KeyboardInterrupt there: the point is queued again
        ray.wait(under_way, num_returns=len(under_way), timeout=60)
        raise


def _outcome(ray, reference) -> int | None:
    """The number of the trial that a task tried, or None if it tried none or its process died."""
    try:
        return ray.get(reference)
    except ray.exceptions.WorkerCrashedError:
        log.warning("a Ray worker died; its trial is tried once more")
        return None
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, UserError):
            raise UserError(str(e.cause)) from None
        raise


def _try_one(sweep: Sweep, num_trials: int) -> int | None:
    """In a Ray worker: the next trial of the study."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("detoxlens").setLevel(logging.INFO)
    return try_one(sweep, sweep.open(), num_trials=num_trials, dog=watchdog(sweep))


def _check_fits(nodes: Sequence[Mapping[str, float]], resources: Resources) -> None:
    """Raises UserError if no node could ever run a trial: Ray would wait for one."""
    for name, wanted in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus)):
        most = max(node.get(name, 0.0) for node in nodes)
        if wanted > most:
            raise UserError(
                f"--{name.lower()}s-per-trial {wanted:g}: no node of the Ray cluster has more than {most:g} {name}s; "
                "ask for less, or name another cluster in RAY_ADDRESS."
            )


def _ray():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads them when it is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray needs Ray: pip install -e '.[ray]' -c constraints.txt. Or leave --engine out."
        ) from None
    return ray
