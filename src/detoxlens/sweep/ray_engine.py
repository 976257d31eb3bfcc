"""Trials as Ray tasks: the study stays where it is, and Ray decides where and on which share of a GPU each is tried.

A task is `study.try_one`, what a local worker repeats: the same functions, seeds and thread count, so the same bytes.
Every node sees the project's files at the same path and reaches the storage; on several nodes, take PostgreSQL.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from detoxlens.common.checkout import check_own_code
from detoxlens.common.console import set_up_console
from detoxlens.jobs.cluster import Resources, Secrets, check_fits, cluster, nodes_of, result_of, secrets_of, stop
from detoxlens.scorers import KEY_VARIABLES
from detoxlens.sweep.study import POLL_SECONDS, Sweep, log_trial, num_counted, sigterm_interrupts, try_one, watchdog

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)


def run_on_ray(
    sweep: Sweep, *, num_trials: int, num_at_once: int, resources: Resources, on_trial: Callable[[Study, int], None]
) -> None:
    """Runs the study to `num_trials` counted trials, at most `num_at_once` at a time, on `cluster.cluster`.

    Raises:
        UserError: Ray is not installed, the cluster cannot give a trial its resources, or a task failed.
    """
    with cluster() as ray:
        check_fits(nodes_of(ray), resources, "trial")
        task = ray.remote(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, max_retries=0)(_try_one)
        with sigterm_interrupts():  # Ray has put a handler of its own in place
            _keep_busy(ray, task, sweep, num_trials=num_trials, num_at_once=num_at_once, on_trial=on_trial)


def _keep_busy(ray, task, sweep: Sweep, *, num_trials: int, num_at_once: int, on_trial) -> None:
    study, dog, keys = sweep.open(), watchdog(sweep), secrets_of(os.environ, KEY_VARIABLES)
    under_way: list = []
    try:
        while under_way or num_counted(study) < num_trials:
            while len(under_way) < min(num_at_once, num_trials - num_counted(study)):
                under_way.append(task.remote(sweep, num_trials, keys))
            ended, under_way = ray.wait(under_way, timeout=POLL_SECONDS)
            for reference in ended:
                number = _outcome(ray, reference)
                if number is None:
                    time.sleep(POLL_SECONDS)  # others are at the last ones
                    continue
                on_trial(study, number)
                log_trial(study, number, num_trials)
            dog.fail_abandoned(study)
    except BaseException:
        stop(ray, under_way, force=False)  # a KeyboardInterrupt there: the point is queued again
        raise


def _outcome(ray, reference) -> int | None:
    """The number of the trial that a task tried, or None if it tried none or its process died."""
    try:
        return result_of(ray, reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as e:
        log.warning("a Ray worker died (%s); its trial is tried once more", type(e).__name__)
        return None


def _try_one(sweep: Sweep, num_trials: int, keys: Secrets) -> int | None:
    """In a Ray worker: the next trial of the study."""
    set_up_console()
    check_own_code(sweep.root)
    with keys.in_environment():
        return try_one(sweep, sweep.open(), num_trials=num_trials, dog=watchdog(sweep))
