"""Shares of a stage's work for several processes: share 0/4 is the first of four, and takes every fourth batch.

Shares need not run at the same time, on the same machine or at all: what one has left undone, the command without a
share does. They meet in a scratch folder (`scratch.py`), so the machines must share the project's `.detoxlens`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from detoxlens.common.errors import UserError

LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""Where a launcher tells a process its number and how many there are: torchrun and accelerate, then srun."""


@dataclass(frozen=True, slots=True)
class Share:
    """One of `count` equal shares of numbered pieces of work: Share(1, 3) takes 1, 4, 7, ..."""

    index: int
    """0..count - 1."""
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def part(self) -> str:
        """Its name in the scratch folder."""
        return f"share-{self.index}-of-{self.count}"

    def takes(self, number: int) -> bool:
        """Is piece `number` of the work this share's?"""
        return number % self.count == self.index

    def device(self, device: str, num_devices: int) -> str:
        """`device`, or one of this machine's accelerators where it names their kind alone (`cuda`): one share each."""
        return f"cuda:{self.index % num_devices}" if device == "cuda" and num_devices > 0 else device


def device_of(share: Share | None, device: str) -> str:
    """Where a share runs, of the accelerators that this process sees; `device` itself without a share."""
    if share is None:
        return device
    import torch

    return share.device(device, torch.cuda.device_count())


def parse_share(text: str, environment: Mapping[str, str]) -> Share:
    """The share that `--share` names: `0/4`, or `auto` for what torchrun, accelerate or srun say.

    Raises:
        UserError: neither of the two, or a number that is not below the count.
    """
    if text == "auto":
        for index, count in LAUNCHERS:
            if index in environment and count in environment:
                text = f"{environment[index]}/{environment[count]}"
                break
        else:
            raise UserError(
                "--share auto: no launcher has numbered this process (RANK and WORLD_SIZE, or SLURM_PROCID and "
                "SLURM_NTASKS, are not set). Start it with torchrun, accelerate launch or srun, or give the share "
                "itself, e.g. --share 0/4."
            )
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(
            f"--share {text}: give NUMBER/COUNT with a number from 0 to COUNT - 1, e.g. --share 0/4 ... --share 3/4 "
            "for four processes, or --share auto under torchrun, accelerate launch or srun."
        )
    return Share(int(found[1]), int(found[2]))
