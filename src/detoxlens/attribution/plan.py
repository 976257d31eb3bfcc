"""Plan of passes: sequences that share a forward, targets that share a backward, within a memory limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_TARGETS = 24
MAX_PAIRS = 2**15
"""Targets times positions of one chunk: 16 targets at 2,048 positions."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """What one (target, position) pair costs in a batched backward pass."""

    hidden: int
    intermediate: int
    num_heads: int
    bytes_per_element: int

    def bytes_per_pair(self, seq: int) -> int:
        """Live bytes per target and position at sequence length `seq`: the residual gradient and its sums (4 hidden),
        query, key and value (3), the MLP's inner gradient twice, three rows of attention scores per head."""
        return self.bytes_per_element * (7 * self.hidden + 2 * self.intermediate + 3 * self.num_heads * seq)


def targets_per_chunk(seq: int, num_targets: int) -> int:
    """How many consecutive targets to differentiate over one prefix of about `seq` positions.

    A chunk of n targets costs one forward (about 1.6 times a target's backward pass, measured) and drags n / 2 surplus
    positions through n backward passes: the sum is least near n = sqrt(3.2 seq). A sequence's chunks are equally long.
    """
    num_targets = max(1, num_targets)
    most = max(1, min(MAX_TARGETS, round(math.sqrt(3.2 * seq)), MAX_PAIRS // max(1, seq)))
    return math.ceil(num_targets / math.ceil(num_targets / most))


def by_length(lengths: Sequence[tuple[int, int]]) -> list[int]:
    """Indices sorted by completion, then prompt length: a target slot that a shorter completion leaves empty costs a
    backward pass, a padded position only its share of one."""
    return sorted(range(len(lengths)), key=lambda i: (lengths[i][1], lengths[i][0], i))


def group_sequences(lengths: Sequence[tuple[int, int]], *, cost: PassCost, memory_bytes: int) -> list[list[int]]:
    """Indices of sequences that share their passes, similar lengths together, every index once.

    Args:
        lengths: (prompt, completion) length of each sequence in tokens.
        cost: of the model.
        memory_bytes: What the live gradients of one pass may take; a single sequence is always allowed.
    """
    groups: list[list[int]] = []
    longest = widest = 0
    for i in by_length(lengths):
        seq, targets = sum(lengths[i]), lengths[i][1]
        longest, widest = max(longest, seq), max(widest, targets)
        size = len(groups[-1]) + 1 if groups else 1
        pairs = size * longest * targets_per_chunk(longest, widest)
        if groups and pairs * cost.bytes_per_pair(longest) <= memory_bytes:
            groups[-1].append(i)
        else:
            groups.append([i])
            longest, widest = seq, targets
    return groups
