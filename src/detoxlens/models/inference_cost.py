"""What a variant costs at inference beside base: numbers that do not depend on the machine.

Weights in memory, and floating-point operations of the matrix products of a forward pass, counted as they are called
(torch's FlopCounterMode): an adapter that is not merged, a second network or a longer prompt show in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from detoxlens.models.forward import evaluating

if TYPE_CHECKING:
    from torch import nn


def weights_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers, each tensor once; tied weights are one."""
    tensors = {t.data_ptr(): t for t in (*network.parameters(), *network.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


@torch.no_grad()
def forward_flops(network: nn.Module, ids: Sequence[int]) -> int:
    """Operations (two per multiply-add) of one pass over `ids` without a cache."""
    device = next(network.parameters()).device
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
    return counter.get_total_flops()
