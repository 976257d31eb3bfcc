"""A Ray cluster: joined or started, what a task is given of it, and what can be wrong with it.

RAY_ADDRESS names a cluster to join; without it one is started on this machine, and stopped at the end with nothing left
of it. Every node sees the project's files, `.detoxlens` included, at the same path.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from detoxlens.common.errors import UserError

PASSED_ON = ("PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_OFFLINE")
"""Of the environment, what decides bytes, speed or where things are."""
NO_ADDRESS = ("", "local")
"""Values of RAY_ADDRESS that name no cluster."""
LONGEST_FOLDER = 25
"""Characters of the folder for temporary files: a socket's path has 107 at most, and Ray adds some 80."""
CONNECT_SECONDS = 5.0
OBJECT_STORE_BYTES = 128 * 2**20
"""Of a cluster started here. Tasks read and write files; what goes through Ray is settings and progress."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What Ray sets aside for one task."""

    num_cpus: float
    num_gpus: float
    """.25 puts four tasks on a GPU."""


def resources_of(num_cpus: float | None, num_gpus: float | None, *, num_threads: int, device: str) -> Resources:
    """What was asked for; else a core per thread, and a GPU where the task runs on one."""
    return Resources(
        num_cpus=num_threads if num_cpus is None else num_cpus,
        num_gpus=float(device.startswith("cuda")) if num_gpus is None else num_gpus,
    )


@dataclass(frozen=True)
class Secrets:
    """Environment variables that a node may lack and nobody may see: they travel as a task's argument.

    Ray writes a task's runtime_env into logs and shows it in the dashboard; of arguments it keeps the bytes alone.
    """

    values: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self.values)})"

    @contextlib.contextmanager
    def in_environment(self) -> Iterator[None]:
        """Set inside; a process's environment as it is listed is the one it was started with, so they do not show."""
        before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def secrets_of(environment: Mapping[str, str], names: Sequence[str]) -> Secrets:
    """Those of `names` that are set; the hub's token is always among them."""
    return Secrets({name: environment[name] for name in (*names, "HF_TOKEN") if environment.get(name)})


@contextlib.contextmanager
def cluster() -> Iterator[ModuleType]:
    """`ray`, connected to the cluster in RAY_ADDRESS, or to one of this machine that ends with the block.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _ray()
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS", "")
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    how: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "configure_logging": False,
        "runtime_env": {"env_vars": environment},
    }
    with contextlib.ExitStack() as at_end:
        if address in NO_ADDRESS:
            parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"
            folder = at_end.enter_context(
                tempfile.TemporaryDirectory(prefix="ray-", dir=parent, ignore_cleanup_errors=True)
            )
            if "RAY_AUTH_MODE" not in os.environ:
                # A token of this cluster's own: Ray would keep one in the home folder.
                token = Secrets({"RAY_AUTH_TOKEN": secrets.token_hex(32)})
                at_end.enter_context(token.in_environment())
            how |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder}
        else:
            _check_reachable(address)
        at_end.callback(ray.shutdown)
        try:
            ray.init(address="local" if address in NO_ADDRESS else address, **how)
        except (OSError, RuntimeError, ValueError) as e:  # no answer; other versions; a malformed address
            message = " ".join(str(e).split())[:300]
            raise UserError(
                f"RAY_ADDRESS={address or '(not set)'}: Ray cannot be used ({type(e).__name__}: {message}). Python and "
                "Ray must have the same versions on all nodes; `ray status` says how the cluster is. Without "
                "RAY_ADDRESS one is started on this machine."
            ) from None
        yield ray


def nodes_of(ray: ModuleType) -> list[Mapping[str, float]]:
    """The resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_fits(nodes: Sequence[Mapping[str, float]], resources: Resources, per: str) -> None:
    """Raises UserError if no node could ever run a task: Ray would wait for one.

    Args:
        nodes: the resources of each.
        resources: what a task asks.
        per: what the options call a task: `trial`, `share`.
    """
    for name, wanted in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus)):
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            raise UserError(
                f"--{name.lower()}s-per-{per} {wanted:g}: no node of the Ray cluster has more than {most:g} {name}s; "
                "ask for less, or name another cluster in RAY_ADDRESS."
            )
    if not num_at_once(nodes, resources):
        raise UserError(
            f"--cpus-per-{per} {resources.num_cpus:g} and --gpus-per-{per} {resources.num_gpus:g}: no single node of "
            "the Ray cluster has both; ask for less, or name another cluster in RAY_ADDRESS."
        )


def num_at_once(nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """How many tasks the nodes hold at the same time."""
    asked = [(name, n) for name, n in (("CPU", resources.num_cpus), ("GPU", resources.num_gpus)) if n > 0]
    return sum(min(int(node.get(name, 0.0) / wanted + 1e-9) for name, wanted in asked) for node in nodes)


def result_of(ray: ModuleType, reference: Any) -> Any:
    """What a task returned; a UserError in it is one here, without Ray's traceback."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, UserError):
            raise UserError(str(e.cause)) from None
        raise


def stop(ray: ModuleType, references: Sequence[Any], *, force: bool) -> None:
    """Ends tasks: by a KeyboardInterrupt in them, or at once; waits until they have ended."""
    for reference in references:
        ray.cancel(reference, force=force)
    if references:
        ray.wait(references, num_returns=len(references), timeout=60)


def _check_reachable(address: str) -> None:
    """Raises UserError where nothing listens: Ray itself would try for minutes."""
    if address == "auto":  # one that `ray start` has started on this machine
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as e:
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster can be reached there ({e}). It is HOST:PORT of the head node, as "
            "`ray start --head` prints it, by default port 6379; without it a cluster is started on this machine."
        ) from None


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads them when it is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray needs Ray: pip install -e '.[ray]' -c constraints.txt. Or leave --engine out."
        ) from None
    return ray
