"""Several workers on one machine: processes that join a study, and another in the place of one that is killed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.sweep.study import POLL_SECONDS, Sweep, num_counted, work

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)
STORAGE_VARIABLE = "DETOXLENS_STORAGE"


def run_workers(
    sweep: Sweep, *, num_trials: int, num_workers: int, track: bool, on_trial: Callable[[Study, int], None]
) -> None:
    """Runs the study to `num_trials` counted trials, in this process or in `num_workers` processes that join it.

    Raises:
        UserError: all workers ended before the study had its trials.
    """
    if num_workers == 1:
        work(sweep, num_trials=num_trials, on_trial=on_trial)
        return
    sweep.open()  # made before the workers look for it
    command, environment = worker_command(sweep, num_trials, track), os.environ | {STORAGE_VARIABLE: sweep.url}

    def start() -> subprocess.Popen[bytes]:  # in a session of its own: Ctrl-C reaches it once, through us
        return subprocess.Popen(command, cwd=sweep.root, env=environment, start_new_session=True)

    codes = supervise(start, num_workers)
    study = sweep.open()
    if num_counted(study) < num_trials:
        raise UserError(
            f"--study {sweep.name}: its workers ended (exit codes {', '.join(map(str, codes))}) with "
            f"{num_counted(study)} of {num_trials} trials done; what they said stands above. The same command goes "
            "on from there."
        )


def supervise(start: Callable[[], subprocess.Popen[bytes]], num_workers: int) -> list[int]:
    """Waits for `num_workers` workers; one that was killed is replaced, twice as many times as there are workers.

    Returns:
        The exit code of every worker, in the order in which they ended.
    """
    workers, codes, num_spare = [start() for _ in range(num_workers)], [], 2 * num_workers
    try:
        while workers:
            for worker in list(workers):
                if (code := worker.poll()) is None:
                    continue
                workers.remove(worker)
                codes.append(code)
                if code < 0 and num_spare:
                    log.warning("a worker was killed by signal %d; another takes its place", -code)
                    num_spare -= 1
                    workers.append(start())
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        raise
    return codes


def worker_command(sweep: Sweep, num_trials: int, track: bool) -> list[str]:
    """What joins the study from another process; where it is, with its password, goes by the environment."""
    return [
        sys.executable,
        "-m",
        "detoxlens",
        "--root",
        str(sweep.root),
        "--params",
        str(sweep.params_path),
        "--track" if track else "--no-track",
        "sweep",
        "--method",
        sweep.method,
        "--models",
        ",".join(sweep.models),
        "--variant",
        sweep.variant,
        "--trials",
        str(num_trials),
        "--study",
        sweep.name,
        "--join",
    ]
