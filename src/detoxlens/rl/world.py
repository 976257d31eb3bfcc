"""Several processes that train one adapter together, started by `torchrun` or `accelerate launch`.

Every process samples, rewards and measures its share of a batch; then all of them hold the whole of it, so that
whitening, KL and every decision are those of one process. Only gradients are added up. What is exchanged is JSON and
tensors, never pickles.

    rollout  rank 0: 0 2 4 6    rank 1: 1 3 5 7     ->  both: 0 1 2 3 4 5 6 7  ->  gradient of a minibatch = sum of both
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from detoxlens.common.errors import UserError

Item = TypeVar("Item")
Json = str | float | int | None
TIMEOUT_SECONDS = 1800.0
"""How long a process waits for a slower one; one that ends is noticed at once."""
OK, FAILED = b"+", b"!"


@dataclass(frozen=True, slots=True)
class World:
    """World() is one process alone, where every exchange is the identity; see `join` for several."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    """Where tensors must lie to be exchanged."""

    @property
    def is_main(self) -> bool:
        """Is this the process that writes files and shows progress?"""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part: every `size`-th item, from `rank` on."""
        return list(items[self.rank :: self.size])

    def together(self, work: Callable[[], bytes]) -> list[bytes]:
        """What `work` gives in each process, by rank, in every process.

        Raises:
            UserError: `work` raised one in some process; the same message everywhere. Or a process has ended.
        """
        try:
            answer = OK + work()
        except UserError as e:
            answer = FAILED + str(e).encode()
        answers = [answer] if self.size == 1 else self._exchanged(answer)
        for other in answers:
            if other.startswith(FAILED):
                raise UserError(other[1:].decode())
        return [other[1:] for other in answers]

    def from_main(self, work: Callable[[], Json]) -> Json:
        """The main process's `work()`, in every process; only the main one does it."""
        if self.size == 1:
            return work()
        return json.loads(self.together(lambda: json.dumps(work()).encode() if self.is_main else b"")[0])

    def sum_of(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over the processes."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        with self._waiting():
            dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Adds the gradients of all processes into each; a process that had nothing to learn adds zero."""
        if self.size == 1:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in parameters])
        with self._waiting():
            dist.all_reduce(flat)
        for p, total in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = total.view_as(p).to(p.dtype)

    @torch.no_grad()
    def copy_from_main(self, parameters: Sequence[Tensor]) -> None:
        """Gives every process the main process's weights."""
        if self.size > 1:
            with self._waiting():
                for p in parameters:
                    dist.broadcast(p, src=0)

    def wait(self) -> None:
        """Returns once every process has come here."""
        self.together(bytes)

    def _exchanged(self, answer: bytes) -> list[bytes]:
        lengths = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.size)]
        with self._waiting():
            dist.all_gather(lengths, torch.tensor([len(answer)], device=self.device))
            longest = max(int(n) for n in lengths)
            padded = torch.frombuffer(bytearray(answer.ljust(longest)), dtype=torch.uint8).to(self.device)
            answers = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(answers, padded)
        return [bytes(a[: int(n)].tolist()) for a, n in zip(answers, lengths, strict=True)]

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Inside, torch.distributed's error about a lost process becomes one that a user can act on."""
        try:
            yield
        except RuntimeError as e:
            raise UserError(
                f"rl: process {self.rank} of {self.size} waited for the others, and one of them has ended or does not "
                f"answer ({str(e).strip().splitlines()[0]}). What that process printed last says why. All end here; "
                f"the same command resumes from the last checkpoint."
            ) from e


@contextmanager
def join(environ: Mapping[str, str], *, device: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[World]:
    """The processes that the launcher has started, as its variables (RANK, WORLD_SIZE, MASTER_ADDR, ...) say.

    Args:
        environ: environment variables; without WORLD_SIZE it is one process alone.
        device: `run.device`. On `cuda` process i of a machine takes the i-th card; gloo connects CPUs, NCCL cards.
        timeout_seconds: how long to wait for a process that does not answer.

    Raises:
        UserError: the launcher is set to shard the model (FSDP, DeepSpeed), or a variable is missing.
    """
    size = int(environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=device)
        return
    for name in ("FSDP", "DEEPSPEED"):
        if environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UserError(
                f"rl: accelerate is configured for {name}, but PPO keeps a whole copy of the base model in every "
                f"process and adds up the adapter's gradients. Launch with `accelerate launch --multi_gpu "
                f"--num_processes {size}`, or with torchrun."
            )
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in environ:
            raise UserError(f"rl: WORLD_SIZE={size} is set but {name} is not; start it by torchrun, or unset both.")
    rank, on_cuda = int(environ["RANK"]), device.startswith("cuda")
    if on_cuda:
        device = f"cuda:{environ.get('LOCAL_RANK', rank)}"
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_cuda else "gloo", timeout=datetime.timedelta(seconds=timeout_seconds)
    )  # reads the same variables
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()
