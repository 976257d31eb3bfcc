"""Seeds are arguments: every draw comes from an explicit generator derived from (seed, names).

`PYTHONHASHSEED` never matters: derivation goes through sha256, not `hash`.
"""

from __future__ import annotations

import ctypes
import hashlib
import random


def derive_seed(seed: int, *names: str | int) -> int:
    """An integer in [0, 2**63) that depends on `seed` and on every name, and on nothing else."""
    text = "\x1f".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def python_rng(seed: int, *names: str | int) -> random.Random:
    """A `random.Random` seeded with `derive_seed(seed, *names)`."""
    return random.Random(derive_seed(seed, *names))


def numpy_rng(seed: int, *names: str | int):
    """A NumPy `Generator` seeded with `derive_seed(seed, *names)`."""
    import numpy as np

    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str | int, device: str = "cpu"):
    """A `torch.Generator` on `device` seeded with `derive_seed(seed, *names)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


def fix_global_state(seed: int, num_threads: int) -> None:
    """Seeds the global generators that other people's trainers read, and fixes torch's thread count."""
    import numpy as np
    import torch

    use_threads(num_threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def use_threads(num_threads: int) -> None:
    """Fixes torch's thread count, and lets the process keep the memory that tensors give back.

    glibc would hand large blocks to the system at every release and fault them in again at the next tensor, a tenth of
    the time of a small model on a CPU (https://man7.org/linux/man-pages/man3/mallopt.3.html). No number changes.
    """
    import torch

    torch.set_num_threads(num_threads)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
